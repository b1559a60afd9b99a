"""The two sides of the inference benchmark: each runs in an environment of its own and answers over a pipe."""
