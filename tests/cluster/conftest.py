"""Makes helpers of other folders importable."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / name) for name in ("catalogs", "pipeline/synthesis")]
