"""Metrics of a reconstruction: distances between an original recording and what a codec made of it."""
