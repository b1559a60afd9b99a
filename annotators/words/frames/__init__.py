"""Sentence frames of captions, one module per language."""
