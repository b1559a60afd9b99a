"""From corpora to packed rows: candidates, mixture, packing, samples, latents. It does not depend on the model."""
