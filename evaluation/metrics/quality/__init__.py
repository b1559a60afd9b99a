"""Metrics of the quality of speech that need no other recording: neural networks trained on the ratings of listeners."""
