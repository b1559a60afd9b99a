"""Clips that a request brings: where they may come from, how they are decoded, and latents that are kept by content."""
