"""The two sides of the training benchmark: each trains one checkpoint on the same clips, in an environment of its own."""
