"""Two or more runs on the items that they have in common."""
