"""The candidate table: the columns a trainer needs of every kept segment, memory-mapped."""
