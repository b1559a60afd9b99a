"""A stage and an annotator that voxmill finds by their entry points."""
