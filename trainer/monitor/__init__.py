"""Reports of a run: console lines, metrics, validation losses, synthesized sentences."""
