"""Makes helpers of other folders importable."""

import sys
from pathlib import Path

# The builders of corpora belong to the tests of catalogs and of the trainer.
sys.path += [str(Path(__file__).parents[2] / name) for name in ("catalogs", "trainer")]
