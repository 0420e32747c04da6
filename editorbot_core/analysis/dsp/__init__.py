"""Signal processing: the Fourier transform, filter banks, frame features, and stems."""
