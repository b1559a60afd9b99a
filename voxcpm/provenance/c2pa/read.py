"""Read manifests: what they say and whether their signatures hold, or only what they say of training and of synthesis."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from voxcpm.provenance.c2pa.claim import GENERATION, SOURCE_TYPES
from voxcpm.provenance.c2pa.library import C2paError, context, library
from voxcpm.provenance.c2pa.store import EMBEDDED, find_manifest, format_of

State = Literal["Valid", "Trusted", "Invalid"]

_OTHER = "application/octet-stream"
_STORE = "application/c2pa"
_SYNTHETIC = {
    "trainedAlgorithmicMedia",
    "compositeWithTrainedAlgorithmicMedia",
    "compositeSynthetic",
    "algorithmicMedia",
    "trainedAlgorithmicData",
}
"""Kinds of sources, as IPTC and C2PA name them, of files that a program made wholly or in part."""
_TRAINING = ("ai_generative_training", "ai_training", "data_mining")
"""Uses of `training-mining`, the nearest to speech synthesis first. The first one that is stated counts."""
_UNTRUSTED = "signingCredential.untrusted"
_LONGEST = 200
_DEEP = 100
"""Most manifests of one file that are followed."""


@dataclass(frozen=True)
class Ingredient:
    """A file that another one was made from. identity: of ours, `sha256:` and the hash of its bytes."""

    title: str
    relationship: str
    identity: str


@dataclass(frozen=True)
class Manifest:
    """What the manifest of a file says. Texts are one line each; they come from outside.

    state: `Invalid` if the file or the manifest was changed after it was signed (`faults` say how), `Trusted` if the
    certificate comes from one that the caller trusts, otherwise `Valid`.
    """

    state: State
    faults: tuple[str, ...]
    embedded: bool  #: False: it stands beside the file
    issuer: str | None  #: organization that the certificate names
    signer: str | None  #: common name of the certificate
    created_by: str | None  #: program
    created: str | None
    source_type: str | None  #: IPTC's word for how it was made
    synthetic: bool
    training: str | None  #: allowed, notAllowed, constrained
    ingredients: tuple[Ingredient, ...]
    watermark: str | None  #: name and payload of a watermark in the samples
    generation: dict[str, Any]  #: our own assertion

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Claims:
    """What a manifest says that matters to who trains on the file. Nothing is verified."""

    synthetic: bool
    no_training: bool


def read_manifest(path: str | Path, trust: str | Path | None = None) -> Manifest | None:
    """Return the manifest of a file, verified against every byte of it; None if it has none.

    trust: PEM file of the certificates that are trusted. Raises OSError, and C2paError if the extra is missing, or the manifest
    cannot be read at all.
    """
    found = find_manifest(path)
    if found is None:
        return None
    store, embedded = found
    anchors = None if trust is None else _anchors(trust)
    with Path(path).open("rb") as file:
        media = EMBEDDED.get(format_of(file) or "", _OTHER) if embedded else _OTHER
        file.seek(0)
        read = _read(media, file, None if embedded else store, context(anchors))
    return _manifest(read, embedded)


def read_claims(store: bytes) -> Claims | None:
    """Return what the bytes of a manifest claim; None if it claims nothing of both. Raises C2paError as `read_manifest` does.

    The file is not read, so this takes the same time for any length.
    """
    read = _read(_STORE, io.BytesIO(store), None, context(verify=False))
    chain = list(_chain(read))
    synthetic = any(kind in _SYNTHETIC for manifest in chain for kind in _source_types(manifest))
    no_training = any(_training(manifest) in ("notAllowed", "constrained") for manifest in chain)
    return Claims(synthetic, no_training) if synthetic or no_training else None


def _read(media: str, file: Any, store: bytes | None, settings: Any) -> dict[str, Any]:
    c2pa = library()
    try:
        with c2pa.Reader(media, file, manifest_data=store, context=settings) as reader:
            values = json.loads(reader.json())
    except (c2pa.C2paError, ValueError, RecursionError) as error:
        raise C2paError(f"its manifest cannot be read: {_line(error)}") from None
    return values if isinstance(values, dict) else {}


def _anchors(path: str | Path) -> str:
    text = Path(path).expanduser().read_text("ascii", "replace")
    if "BEGIN CERTIFICATE" not in text:
        raise C2paError(f"{path} holds no certificate: give a PEM file with BEGIN CERTIFICATE")
    return text


def _manifest(read: Mapping[str, Any], embedded: bool) -> Manifest:
    manifest = _active(read)
    signature = _mapping(manifest.get("signature_info"))
    state = read.get("validation_state")
    chosen: State = state if state in ("Valid", "Trusted") else "Invalid"
    return Manifest(
        state=chosen,
        faults=tuple(_faults(read)) if chosen == "Invalid" else (),
        embedded=embedded,
        issuer=_text(signature.get("issuer")),
        signer=_text(signature.get("common_name")),
        created_by=_program(manifest),
        created=_text(signature.get("time")) or next(_whens(manifest), None),
        source_type=next(_source_types(manifest), None),
        synthetic=any(kind in _SYNTHETIC for one in _chain(read) for kind in _source_types(one)),
        training=_training(manifest),
        ingredients=tuple(_ingredients(manifest)),
        watermark=next(_watermarks(manifest), None),
        generation=next(_assertions(manifest, GENERATION), {}),
    )


def _active(read: Mapping[str, Any]) -> Mapping[str, Any]:
    return _mapping(_mapping(read.get("manifests")).get(str(read.get("active_manifest"))))


def _chain(read: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the manifest of a file, and those of the files that it consists of."""
    manifests = _mapping(read.get("manifests"))
    waiting, seen = [str(read.get("active_manifest"))], set[str]()
    while waiting and len(seen) < _DEEP:
        label = waiting.pop()
        if label in seen:
            continue
        seen.add(label)
        manifest = _mapping(manifests.get(label))
        yield manifest
        for one in _list(manifest.get("ingredients")):
            if one.get("relationship") in ("parentOf", "componentOf") and isinstance(one.get("active_manifest"), str):
                waiting.append(one["active_manifest"])


def _assertions(manifest: Mapping[str, Any], label: str) -> Iterator[dict[str, Any]]:
    """Yield the data of the assertions of a label, whatever their version and number (`label.v2`, `label__1`)."""
    for one in _list(manifest.get("assertions")):
        if re.fullmatch(re.escape(label) + r"(\.v\d+)?(__\d+)?", str(one.get("label"))):
            yield dict(_mapping(one.get("data")))


def _actions(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for data in _assertions(manifest, "c2pa.actions"):
        yield from _list(data.get("actions"))


def _source_types(manifest: Mapping[str, Any]) -> Iterator[str]:
    for action in _actions(manifest):
        if kind := _text(action.get("digitalSourceType")):
            yield kind.removeprefix(SOURCE_TYPES).rpartition("/")[2]


def _whens(manifest: Mapping[str, Any]) -> Iterator[str]:
    for action in _actions(manifest):
        if when := _text(action.get("when")):
            yield when


def _training(manifest: Mapping[str, Any]) -> str | None:
    stated: dict[str, str] = {}
    for prefix in ("cawg", "c2pa"):
        for data in _assertions(manifest, f"{prefix}.training-mining"):
            for name, entry in _mapping(data.get("entries")).items():
                if use := _text(_mapping(entry).get("use")):
                    stated.setdefault(str(name).removeprefix(f"{prefix}."), use)
    return next((stated[name] for name in _TRAINING if name in stated), None)


def _ingredients(manifest: Mapping[str, Any]) -> Iterator[Ingredient]:
    for one in _list(manifest.get("ingredients")):
        identity = _text(one.get("instance_id")) or ""
        yield Ingredient(_text(one.get("title")) or "", _text(one.get("relationship")) or "", identity)


def _watermarks(manifest: Mapping[str, Any]) -> Iterator[str]:
    for data in _assertions(manifest, "c2pa.soft-binding"):
        payload = next((_text(block.get("value")) for block in _list(data.get("blocks"))), None)
        name = _text(data.get("alg")) or "not named"
        yield f"{name} {payload or ''}".strip()


def _program(manifest: Mapping[str, Any]) -> str | None:
    for one in _list(manifest.get("claim_generator_info")):
        return " ".join(filter(None, (_text(one.get("name")), _text(one.get("version"))))) or None
    return _text(manifest.get("claim_generator"))


def _faults(read: Mapping[str, Any]) -> Iterator[str]:
    """Yield why a manifest is invalid: codes of C2PA with their explanations."""
    results = _mapping(_mapping(read.get("validation_results")).get("activeManifest"))
    for one in _list(results.get("failure")):
        if (code := _text(one.get("code"))) and code != _UNTRUSTED:
            yield f"{code} ({_text(one.get('explanation')) or 'no explanation'})"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    """Return a text from outside as one line without control characters; None for what is not a text, or empty."""
    return (_line(value) or None) if isinstance(value, str) else None


def _line(value: object) -> str:
    return "".join(c if c.isprintable() else " " for c in " ".join(str(value).split()))[:_LONGEST]
