"""Closed vocabularies: languages and dialects."""
