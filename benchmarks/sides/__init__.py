"""The two sides of the inference benchmark: each runs in a separate environment and answers over a pipe."""
