"""Weights on disk: official checkpoint folders and LoRA adapters."""
