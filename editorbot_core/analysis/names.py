"""The names of beat trackers and stem separators, readable without loading any of them."""

DEFAULT_SEPARATOR = "masks"
SEPARATORS = (DEFAULT_SEPARATOR, "demucs")
DEFAULT_TRACKER = "semi-markov"
TRACKERS = (DEFAULT_TRACKER, "librosa", "beat_this")
