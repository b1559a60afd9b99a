"""Bulk generation from a table (`voxmill speak --table`): read rows, speak them over the engine, write columns and audio."""
