"""Damage to a corpus' files: one error, with the command that mends it, wherever such a file is met."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from catalogs.corpus.commit import CorpusError
from catalogs.files import one_line


class DamagedFileError(CorpusError):
    """A file of a corpus is missing, cut off or changed; the message is one line that names the file and the repair."""

    def __init__(self, path: str | Path, fault: str) -> None:
        self.finding = f"{path}: {fault}"
        """The message without the repair."""
        super().__init__(f"{self.finding}; run: {repair_command(corpus_of(Path(path)))}")


def repair_command(root: str | Path) -> str:
    """The command that mends a corpus, ready to be pasted into a shell."""
    return f"voxmill fsck {shlex.quote(str(root))} --repair"


def corpus_of(path: Path) -> Path:
    """The corpus folder that a file lies in; its own folder if no corpus is above it."""
    return next((folder for folder in path.parents if (folder / "corpus.json").is_file()), path.parent)


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Raise DamagedFileError, about `path`, for whatever Arrow, Parquet or FLAC say of a file that is not what was committed."""
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
    """Return what was found, in one line; of a DamagedFileError without the repair, which the caller names."""
    return (error.finding if isinstance(error, DamagedFileError) else one_line(error)).rstrip(".")
