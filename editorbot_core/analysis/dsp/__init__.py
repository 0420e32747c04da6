"""Signal processing: the transform, frame features, and stems."""
