"""What a path or URL says by itself: whether it is a URL, and by its ending whether it is no recording or holds some."""

from __future__ import annotations

from pathlib import Path, PurePath, PurePosixPath

_ENDINGS = """
    txt json jsonl csv tsv parquet arrow md rst pdf html htm xml yaml yml toml ini cfg conf log py sh ipynb
    srt vtt ass lab textgrid rttm ctm stm trn segments eaf
    jpg jpeg png gif webp svg bmp ico heic zip gz tar tgz xz 7z rar bz2 zst
    db sqlite duckdb pkl npy npz pt pth pyd cls lang ckpt safetensors onnx nfo m3u m3u8 cue url ds_store lock
    doc docx xls xlsx ppt pptx odt rtf sha256 md5 sfv torrent part crdownload
"""
#: Endings of files that lie beside recordings and are none; anything else is tried, whatever it is called.
NOT_RECORDINGS = frozenset(f".{ending}" for ending in _ENDINGS.split())

_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_OTHER_ARCHIVES = (".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def is_location(path: str) -> bool:
    """Whether this is a URL and no path."""
    return "://" in path


def local_path(argument: str) -> str:
    """The path of a `file://` URL; anything else as it is."""
    for protocol in ("file://", "local://"):
        if argument.startswith(protocol) and "::" not in argument:
            return argument.removeprefix(protocol)
    return argument


def printable(path: str | PurePath) -> str:
    """A path as text that can be written down, whatever bytes are in it."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_tar(name: str) -> bool:
    """Whether a file is a tar by its name, compressed or not."""
    return name.lower().endswith(_TARS)


def is_zip(name: str) -> bool:
    """Whether a file is a zip by its name."""
    return name.lower().endswith(".zip")


def is_other_archive(name: str) -> bool:
    """Whether a file is an archive by its name, of a kind that is not opened here."""
    return name.lower().endswith(_OTHER_ARCHIVES) and not is_tar(name)


def is_no_recording(name: str) -> bool:
    """Whether a file is plainly no recording by its ending."""
    return PurePosixPath(name).suffix.lower() in NOT_RECORDINGS


def is_hidden(path: str) -> bool:
    """Whether a file or a folder above it is hidden, in a path relative to where the recordings are."""
    return any(part.startswith(".") and part != ".." for part in PurePosixPath(path).parts)


def bare(url: str) -> str:
    """What a recording is called that a list names by a URL: its path in the store, `bucket/talks/1.wav`, and of a member of an
    archive the archive's path before it."""
    inner, _, outer = url.partition("::")
    path = PurePosixPath(inner.partition("://")[2] if is_location(inner) else inner).as_posix().strip("/")
    return f"{bare(outer)}/{path}" if outer else path


def beside_list(written: str, folder: Path) -> str:
    """A path or URL that a list in `folder` names: paths count from there, those of archives in a chained URL too."""
    written = local_path(written)
    if not is_location(written):
        return str(folder / written)
    head, chain, outer = written.rpartition("::")
    return written if not chain or is_location(outer) else f"{head}::file://{folder / outer}"
