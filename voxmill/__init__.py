"""The command line, the doctor and the demo: thin wrappers that import the other packages when they are used.

`prepare` and `retry` are the functions behind the commands of these names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxcpm.lazy import exported

if TYPE_CHECKING:
    from pipeline.config import load_config
    from pipeline.prepare import prepare
    from pipeline.retry import retry

__version__ = "0.1.0"

_HOMES = {"load_config": "pipeline.config", "prepare": "pipeline.prepare", "retry": "pipeline.retry"}

__all__ = ["load_config", "prepare", "retry"]


__getattr__ = exported(__name__, _HOMES)
