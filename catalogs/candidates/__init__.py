"""The candidate table: the columns that a trainer needs of every kept segment, memory-mapped."""

HELD_OUT_SHARE = 0.02
"""Share of segments that is held out of training unless a run states another. Here, so that settings need no NumPy."""
