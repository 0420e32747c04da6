"""The rating page: its server, access control, the queue of pairs, and rendered audio."""
