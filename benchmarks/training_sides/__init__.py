"""The two sides of the training benchmark: each trains one checkpoint on the same clips, in a separate environment."""
