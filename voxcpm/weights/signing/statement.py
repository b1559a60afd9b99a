"""The signed statement: in-toto Statement v1 with the digest of every file of a model, as model-signing 1.1 writes it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from voxcpm.weights.signing.keys import SignatureError

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
GIT_PATHS = (".git", ".gitattributes", ".github", ".gitignore")
"""What the format leaves out by default: a clone of a repository has it and a download has not."""

Counter = Callable[[int, int | None], None]
"""Called with (files read, files in all)."""


@dataclass(frozen=True)
class Statement:
    """What was signed: the name of the model, the SHA-256 of its files by path, and paths that it says nothing about."""

    name: str
    digests: Mapping[str, str]
    ignored: tuple[str, ...] = ()
    links: bool = False
    """Whether links were followed when it was signed."""

    def payload(self) -> bytes:
        """Return the statement as JSON."""
        names = sorted(self.digests, key=lambda name: PurePosixPath(name).parts)
        resources = [{"name": name, "digest": self.digests[name], "algorithm": "sha256"} for name in names]
        values = {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": self.name, "digest": {"sha256": _root(resource["digest"] for resource in resources)}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "serialization": {
                    "method": "files",
                    "hash_type": "sha256",
                    "allow_symlinks": self.links,
                    "ignore_paths": list(self.ignored),
                },
                "resources": resources,
            },
        }
        return json.dumps(values, indent=1).encode()


def read_statement(payload: bytes) -> Statement:
    """Return a statement from its JSON. Raises SignatureError, in words that follow the name of the signature."""
    try:
        values = json.loads(payload)
        if values["_type"] != STATEMENT_TYPE or values["predicateType"] != PREDICATE_TYPE:
            raise SignatureError(
                f"it states {values['_type']} {values['predicateType']}, and only {PREDICATE_TYPE} is read"
            )
        return _statement(values["subject"], values["predicate"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, SignatureError):
            raise
        raise SignatureError("its statement is damaged") from None


def _statement(subject: list[dict[str, Any]], predicate: dict[str, Any]) -> Statement:
    how = predicate["serialization"]
    if how["method"] != "files" or how["hash_type"] != "sha256":
        kind = f"{how['method']}, {how['hash_type']}"
        raise SignatureError(f"its digests are of another kind ({kind}); only SHA-256 of whole files is read")
    ((name, expected),) = [(one["name"], one["digest"]["sha256"]) for one in subject]
    resources = predicate["resources"]
    if any(one["algorithm"] != "sha256" for one in resources):
        raise SignatureError("it has digests other than SHA-256")
    if _root(one["digest"] for one in resources) != expected:
        raise SignatureError("its digests do not fit together: the digest over all of them is another one")
    digests = {str(one["name"]): str(one["digest"]).lower() for one in resources}
    if len(digests) != len(resources):
        raise SignatureError("it names a file twice")
    ignored = tuple(str(path) for path in how.get("ignore_paths", ()))
    return Statement(str(name), digests, ignored, how.get("allow_symlinks") is True)


def file_digests(
    folder: Path, ignored: Iterable[str], links: bool = False, count: Counter | None = None
) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder by its path, hidden ones too. Files are read piece by piece.

    links: read what links to files lead to. Otherwise a link raises SignatureError, and so does what is neither file nor folder.
    """
    names = sorted(_files(folder, [PurePosixPath(path) for path in ignored], links))
    found = {}
    for number, name in enumerate(names):
        if count:
            count(number, len(names))
        with (folder / name).open("rb") as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _files(folder: Path, ignored: list[PurePosixPath], links: bool) -> Iterator[str]:
    """Yield the paths of all files below a folder that are not ignored, nor in a folder that is."""
    for path, folders, files in os.walk(folder, onerror=_raise):
        for name in (*folders, *files):
            full = Path(path, name)
            relative = full.relative_to(folder)
            if any(relative.is_relative_to(one) for one in ignored):
                if name in folders:
                    folders.remove(name)
                continue
            _check_file(full, links)
            if full.is_file():
                yield relative.as_posix()


def _check_file(path: Path, links: bool) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise SignatureError(f"{str(path)!a} has a name that is not UTF-8: rename it") from None
    if path.is_symlink() and not (links and path.is_file()):
        raise SignatureError(f"{path} is a link: put a copy of the file in its place, since links are not signed")
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise SignatureError(f"{path} is neither a file nor a folder: remove it")


def _raise(error: OSError) -> None:
    raise error


def _root(digests: Iterable[str]) -> str:
    """Return the SHA-256 over digests in hex, in their order."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()
