"""Thresholds and the DuckDB views over a corpus."""
