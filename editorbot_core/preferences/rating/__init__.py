"""The rating page: its server, its guard, the queue of pairs, and the audio that is played."""
