"""Runs: a folder with the audio of one system, and a Parquet row per item, seed and metric."""
