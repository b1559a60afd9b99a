"""From raw recordings to sentences that were never heard: one command, see `__main__`."""
