"""Resources of the assets: home folder, tables, MLflow tracking, stages, liveness of runs, ledger, reporting."""
