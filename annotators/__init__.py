"""Descriptions of voices: annotators that write them, and the pass that runs an annotator over a corpus."""
