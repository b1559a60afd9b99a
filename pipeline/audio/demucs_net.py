"""Read a Demucs network from its file, which is a pickle, without running any code in it."""

from __future__ import annotations

import codecs
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.stage import LoadError, described


def load_demucs(path: Path) -> Any:
    """Return a Demucs network, ready to use, from its `.th` file. Raises LoadError with one line if it is not available.

    The file is a pickle that names the network's class and arguments in addition to its weights. Only these few names are
    allowed: anything else in it raises instead of running.
    """
    try:
        import torch
        from demucs.htdemucs import HTDemucs
        from demucs.states import load_model
    except ImportError as error:
        raise LoadError(f"source separation needs demucs ({error.name}): pip install 'voxmill[separate]'") from None
    try:
        with torch.serialization.safe_globals([HTDemucs, Fraction, *_numpy_scalars()]):
            package = torch.load(path, map_location="cpu", weights_only=True)
        return load_model(package).eval()  # type: ignore[no-untyped-call]
    except (pickle.UnpicklingError, KeyError, TypeError, RuntimeError) as error:
        raise LoadError(f"{path.name} is not a Demucs network that can be loaded: {described(error)[:200]}") from None


def _numpy_scalars() -> list[Any]:
    """Return the names that a pickled NumPy number consists of. Older versions of NumPy had its constructor in another
    module."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32)]
    names = [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]
    return [*names, np.dtype, *kinds, codecs.encode]
