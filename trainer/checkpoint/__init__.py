"""Checkpoints of a run: written, restored, sharded."""
