"""The candidate table: the columns that a trainer needs of every kept segment, memory-mapped."""
