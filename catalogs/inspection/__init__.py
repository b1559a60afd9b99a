"""What a person wants to know of a corpus at once, and of one clip of it."""
