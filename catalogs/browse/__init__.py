"""`voxmill browse`: a local page to search, listen to, compare and mark the segments of a corpus."""
