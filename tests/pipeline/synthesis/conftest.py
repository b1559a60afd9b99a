"""Makes helpers of other folders importable."""

import sys
from pathlib import Path

# The builders of unit rows belong to the tests of catalogs.
sys.path.append(str(Path(__file__).parents[2] / "catalogs"))
