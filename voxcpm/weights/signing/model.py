"""Sign the folder of a model, and verify one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from voxcpm.weights.atomic import write_file
from voxcpm.weights.signing.bundle import MOST_BYTES, is_bundle, seal, unseal
from voxcpm.weights.signing.keys import SignatureError, key_id, load_private_key, load_public_key
from voxcpm.weights.signing.statement import GIT_PATHS, Counter, Statement, file_digests, read_statement

SIGNATURE = "model.sig"
LINEAGE = "lineage.json"


@dataclass(frozen=True)
class Signed:
    """A signature that was written. lineage: whether what the model was trained on is among the signed files."""

    signature: Path
    model: str
    files: int
    key: str
    lineage: bool


@dataclass(frozen=True)
class Verified:
    """What a valid signature says of a folder. The paths are relative to it.

    not_covered: paths in the folder that the signature leaves out, other than the signature itself.
    """

    model: str
    key: str
    files: int
    changed: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    not_covered: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether the folder is what was signed."""
        return not (self.changed or self.missing or self.extra)


def sign_model(
    model: str | Path, key: str | Path, out: str | Path | None = None, count: Counter | None = None
) -> Signed:
    """Sign all files of a folder with a private key (PEM), and write the signature. out: default model.sig in the folder.

    Git's own files at the top of the folder are left out, as model-signing leaves them out. An earlier signature at `out` is
    replaced. Raises SignatureError in one line.
    """
    private = load_private_key(Path(key))
    folder = _folder(model)
    file = Path(model) / SIGNATURE if out is None else Path(out)
    _check_out(file)
    inside = _inside(file, folder)
    if inside == ".":
        raise SignatureError(f"{file} is the model's folder: give the name of a file")
    own = _inside(Path(key), folder)
    if own is not None:
        raise SignatureError(
            f"the private key {key} is in the model's folder: move it out before you publish the model"
        )
    ignored = (*GIT_PATHS, *([inside] if inside else []))
    digests = file_digests(folder, ignored, count=count)
    if not digests:
        raise SignatureError(f"{folder} holds no files: give the folder of a model")
    write_file(file, seal(Statement(folder.name, digests, ignored).payload(), private))
    return Signed(file, folder.name, len(digests), key_id(private.public_key()), LINEAGE in digests)


def verify_model(
    model: str | Path, public_key: str | Path, signature: str | Path | None = None, count: Counter | None = None
) -> Verified:
    """Compare a folder with its signature. signature: default model.sig in the folder.

    Raises SignatureError in one line if the signature is not of this key, is damaged, or covers no file. Nothing of it is used
    before it is known to be of the key.
    """
    public = load_public_key(Path(public_key))
    folder = _folder(model)
    file = Path(model) / SIGNATURE if signature is None else Path(signature)
    if not file.is_file():
        raise SignatureError(f"no signature at {file}; make one with: voxmill sign, or give --signature FILE")
    try:
        statement = read_statement(unseal(_read(file), public))
        if not statement.digests:
            raise SignatureError("it covers no file")
    except SignatureError as error:
        raise SignatureError(f"{file} does not hold: {error}") from None
    inside = _inside(file, folder)
    ignored = (*statement.ignored, *([inside] if inside else []))
    found, signed = file_digests(folder, ignored, statement.links, count), statement.digests
    return Verified(
        statement.name,
        key_id(public),
        len(signed),
        changed=tuple(sorted(name for name in signed if found.get(name, signed[name]) != signed[name])),
        missing=tuple(sorted(signed.keys() - found.keys())),
        extra=tuple(sorted(found.keys() - signed.keys())),
        not_covered=tuple(_present(folder, statement, inside)),
    )


def _present(folder: Path, statement: Statement, signature: str | None) -> list[str]:
    """Return the ignored paths of a statement that are in the folder."""
    safe = (path for path in statement.ignored if ".." not in PurePosixPath(path).parts and not path.startswith("/"))
    return sorted({path for path in safe if path != signature and os.path.lexists(folder / path)})


def _folder(model: str | Path) -> Path:
    """Return the folder of a model itself, if a link leads to it."""
    folder = Path(model)
    if not folder.is_dir():
        raise SignatureError(f"{model} is not a folder: give the folder of a model")
    return folder.resolve()


def _inside(file: Path, folder: Path) -> str | None:
    """Return the path of a file within a folder; None if it is elsewhere."""
    resolved = file.parent.resolve() / file.name
    return resolved.relative_to(folder).as_posix() if resolved.is_relative_to(folder) else None


def _check_out(file: Path) -> None:
    if not file.parent.is_dir():
        raise SignatureError(f"{file.parent} is not a folder: make it, or choose another place for the signature")
    if os.path.lexists(file) and not (file.is_file() and is_bundle(_read(file))):
        raise SignatureError(f"{file} exists and is not a signature: choose another name with --out")


def _read(file: Path) -> bytes:
    if file.stat().st_size > MOST_BYTES:
        raise SignatureError(f"{file} has more than {MOST_BYTES // 1_000_000} MB: it is not a model signature")
    return file.read_bytes()
