"""What a path or URL states by itself: whether it is a URL, and by its ending whether it is or holds recordings."""

from __future__ import annotations

from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import unquote

from catalogs.urls import is_location, public

_ENDINGS = """
    txt json jsonl csv tsv parquet arrow md rst pdf html htm xml yaml yml toml ini cfg conf log py sh ipynb
    srt vtt ass lab textgrid rttm ctm stm trn segments eaf
    jpg jpeg png gif webp svg bmp ico heic zip gz tar tgz xz 7z rar bz2 zst
    db sqlite duckdb pkl npy npz pt pth pyd cls lang ckpt safetensors onnx nfo m3u m3u8 cue url ds_store lock
    doc docx xls xlsx ppt pptx odt rtf sha256 md5 sfv c2pa torrent part crdownload
"""
#: Endings of files beside recordings that are not recordings. Files with any other ending are tried.
NOT_RECORDINGS = frozenset(f".{ending}" for ending in _ENDINGS.split())

_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_OTHER_ARCHIVES = (".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def local_path(argument: str) -> str:
    """Return the path of a `file://` URL; anything else unchanged."""
    for protocol in ("file://", "local://"):
        if argument.startswith(protocol) and "::" not in argument:
            return argument.removeprefix(protocol)
    return argument


def container_path(location: str) -> str:
    """Return the path or URL of the file that holds a recording: the archive or table of a member, otherwise the recording
    itself."""
    outer = location.rpartition("::")[2]
    if outer.startswith("rows://"):
        return unquote(outer.removeprefix("rows://").partition("#")[0])
    return local_path(outer)


def printable(path: str | PurePath) -> str:
    """Return a path as text that can be written, whatever bytes it contains."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_page(url: str) -> bool:
    """Return True if this is a URL of a web server."""
    return url.startswith(("http://", "https://"))


def without_query(url: str) -> str:
    """Return the URL of a web server without its query, so that its ending shows the kind of file. Anything else is
    unchanged."""
    return url.partition("?")[0].partition("#")[0] if is_page(url) else url


def is_tar(name: str) -> bool:
    """Return True if a file is a tar by its name, compressed or not."""
    return name.lower().endswith(_TARS)


def is_zip(name: str) -> bool:
    """Return True if a file is a zip by its name."""
    return name.lower().endswith(".zip")


def is_other_archive(name: str) -> bool:
    """Return True if a file is an archive by its name, of a kind that is not opened here."""
    return name.lower().endswith(_OTHER_ARCHIVES) and not is_tar(name)


def is_no_recording(name: str) -> bool:
    """Return True if a file is plainly not a recording, by its ending."""
    return PurePosixPath(name).suffix.lower() in NOT_RECORDINGS


def is_corpus(folder: Path) -> bool:
    """Return True if `prepare` made the folder."""
    return (folder / "corpus.json").is_file() and (folder / "units").is_dir()


def is_hidden(path: str) -> bool:
    """Return True if a file or a folder above it is hidden, in a path relative to the folder of the recordings."""
    return any(part.startswith(".") and part != ".." for part in PurePosixPath(path).parts)


def bare(url: str) -> str:
    """Return the name of a recording that a list gives by a URL: its path in the store, `bucket/talks/1.wav`. For a member
    of an archive, the archive's path comes before it."""
    inner, _, outer = public(url).partition("::")
    if is_page(inner):
        inner = unquote(inner)
    path = PurePosixPath(inner.partition("://")[2] if is_location(inner) else inner).as_posix().strip("/")
    return f"{bare(outer)}/{path}" if outer else path


def beside_list(written: str, folder: Path) -> str:
    """Return a path or URL that a list in `folder` gives. Paths are relative to that folder, also those of archives in a
    chained URL."""
    written = local_path(written)
    if not is_location(written):
        return str(folder / written)
    head, chain, outer = written.rpartition("::")
    return written if not chain or is_location(outer) else f"{head}::file://{folder / outer}"
