"""Voiceprints: the encoders behind `embed_speaker`, and grouping a session's segments by voice."""
