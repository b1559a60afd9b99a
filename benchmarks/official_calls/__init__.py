"""The calls of benchmarks/upstream_calls.py, which runs them."""
