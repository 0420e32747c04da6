"""Songs: the library and its ingestion, the split into training and held-out songs, and the demo songs.

Public: `Song` (`song`), `ingest`, `load_songs` (`library`), `split_songs` (`splits`), `compose_demo_songs`
(`demo.songs`).
"""
