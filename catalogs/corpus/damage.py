"""Damage to a corpus' files: one exception, with the command that repairs it, for every reader."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from catalogs.corpus.commit import CorpusError
from catalogs.files import one_line


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
