"""One audio format per file, written while the samples arrive."""
