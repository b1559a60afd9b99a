"""Duplicate audio: fingerprints of segments, matches between them, and the resulting groups."""
