"""The 121 features per beat: their definitions, their extraction, and the table they are stored in."""
