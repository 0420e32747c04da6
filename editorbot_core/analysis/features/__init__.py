"""The 121 features per beat: their definitions, extraction, and storage."""
