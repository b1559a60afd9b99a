"""The corpus format, the registry of pretrained weights, the languages, and the views and reports of a corpus."""
