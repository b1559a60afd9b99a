"""Passes the fixtures on to pytest. mypy cannot tell several files of the name conftest apart, so that they have another."""

from first_models import first
from voxcpm_fixtures import fresh_backbone, golden_backbone, golden_set, golden_tokenizer, no_gradients

__all__ = ["first", "fresh_backbone", "golden_backbone", "golden_set", "golden_tokenizer", "no_gradients"]
