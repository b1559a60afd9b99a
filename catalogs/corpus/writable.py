"""Check that a corpus can be written to, before anything is loaded or computed."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

from catalogs.corpus.commit import CorpusError, corpus_info

_READ_ONLY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def check_writable(root: str | Path, folder: str) -> None:
    """Raise CorpusError, in one line, if `root` is not a corpus or `folder` within it cannot be written to."""
    corpus_info(root)
    try:
        for name in ("tmp", folder):
            place = Path(root) / name
            place.mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        raise CorpusError(
            f"{root} cannot be written to ({error.strerror}): make it writable, or give a copy that is"
        ) from None
