"""Songs: the library and its ingestion, which songs are held out, and the demo songs.

Public: `Song` (`song`), `ingest`, `load_songs` (`library`), `split_songs` (`splits`), `compose_demo_songs`
(`demo.songs`).
"""
