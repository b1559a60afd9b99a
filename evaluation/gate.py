"""Rules that a run must keep against a baseline."""
