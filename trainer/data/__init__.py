"""From corpora to packed rows: candidates, mixture, packing, samples, latents. Knows no model."""
