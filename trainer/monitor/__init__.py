"""Reports of a run: console lines, metrics, validation losses, synthesized sentences, panels; and the guard of the loss."""
