"""Inference with a checkpoint: read reference clips, turn text into patches, and write patches to audio files."""
