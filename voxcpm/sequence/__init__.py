"""The model's input sequences from text and patches, for inference and for training."""
