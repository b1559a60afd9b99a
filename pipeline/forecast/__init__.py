"""What a run will cost, from a few minutes of the recordings (`prepare --dry-run`)."""
