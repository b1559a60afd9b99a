"""Speaking with a checkpoint: reference clips in, text to patches, patches to audio files."""
