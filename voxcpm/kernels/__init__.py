"""Faster forms of linear layers and towers, for inference on a CPU or GPU and for training on a CPU."""
