"""Files of a corpus that cannot be read or written: one exception for damage, with the command that repairs it."""

from __future__ import annotations

import errno
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from catalogs.corpus.commit import CorpusError, corpus_info
from catalogs.files import one_line

_READ_ONLY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class DamagedFileError(CorpusError):
    """A file of a corpus is missing, truncated or changed; the message is one line that names the file and the repair."""

    def __init__(self, path: str | Path, fault: str) -> None:
        self.finding = f"{path}: {fault}"
        """The message without the repair."""
        super().__init__(f"{self.finding}; run: {repair_command(corpus_of(Path(path)))}")


def repair_command(root: str | Path) -> str:
    """Return the command that repairs a corpus, quoted for a shell."""
    return f"voxmill fsck {shlex.quote(str(root))} --repair"


def corpus_of(path: Path) -> Path:
    """Return the corpus folder that holds a file, or the file's folder if no corpus is above it."""
    return next((folder for folder in path.parents if (folder / "corpus.json").is_file()), path.parent)


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn the errors of Arrow, Parquet and FLAC for a damaged file into a DamagedFileError about `path`."""
    try:
        yield
    except CorpusError:
        raise
    except FileNotFoundError:
        raise DamagedFileError(path, "is missing") from None
    except (pa.ArrowException, OSError, ValueError, LookupError, EOFError) as error:
        raise DamagedFileError(path, f"is damaged ({finding(error)})") from None
    except RuntimeError as error:
        if type(error).__module__ != "soundfile":
            raise
        raise DamagedFileError(path, f"holds a clip that is damaged ({finding(error)})") from None


def finding(error: BaseException) -> str:
    """Return the message of an error in one line; for a DamagedFileError without the repair, which the caller adds."""
    return (error.finding if isinstance(error, DamagedFileError) else one_line(error)).rstrip(".")


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
