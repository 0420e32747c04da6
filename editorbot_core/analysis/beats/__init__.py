"""Beats and bars: trackers, candidate readings and their ranking, annotations, and people's corrections."""
