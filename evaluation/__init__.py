"""Evaluation: whether a text-to-speech model is good, which of two is better, and what the numbers can prove."""
