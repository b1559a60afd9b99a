"""Continuous generation: requests join, leave and pause between steps, and each is spoken as if it were alone."""
