"""Opening recordings: formats, decoders, channels, 16 kHz windows, source separation networks."""
