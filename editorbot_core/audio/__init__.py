"""Audio: files to samples and back, ranges of a source, and edits rendered from those ranges.

Public: `AudioClip`, `resample` (`clip`), `read_audio`, `write_audio`, `open_audio` (`files`), `Segment` (`segments`),
`render`, `align_joins` (`render`).
"""
