"""Beats and bars: trackers, the readings they are chosen from, annotations, and what people correct."""
