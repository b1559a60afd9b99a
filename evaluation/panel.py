"""The quick panel: whether a checkpoint became better."""
