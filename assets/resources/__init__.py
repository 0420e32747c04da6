"""What assets need around their one call: the home, tables, tracking, stages, liveness, the ledger, reporting."""
