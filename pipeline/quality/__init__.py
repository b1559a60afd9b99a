"""Measures of a clip's audio: pure functions and one model, with units in their names."""
