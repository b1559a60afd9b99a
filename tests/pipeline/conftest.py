"""Passes the fixtures on to pytest. mypy cannot tell several files of the name conftest apart, so that they have another."""

from pipeline_fixtures import encoded_once

__all__ = ["encoded_once"]
