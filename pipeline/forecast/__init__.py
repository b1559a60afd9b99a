"""Forecast the cost of a run from a few minutes of the recordings (`prepare --dry-run`)."""
