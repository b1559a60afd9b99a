"""Passes the fixtures on to pytest. mypy cannot tell several files of the name conftest apart, so that they have another."""

import sys
from pathlib import Path

from trainer_fixtures import one_thread, runs, speech

__all__ = ["one_thread", "runs", "speech"]

# The builders of unit rows belong to the tests of catalogs.
sys.path.append(str(Path(__file__).parent.parent / "catalogs"))
