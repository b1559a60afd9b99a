"""From text and patches to the sequences the model reads, for inference and for training."""
