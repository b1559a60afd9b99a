"""`voxmill forget`: recordings, sessions or voices are hidden at once, then erased from every file of a corpus."""
