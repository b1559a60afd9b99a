"""A listening test from runs: a page to send, and the key that says what was heard.

OUT/send/listen.html   the page; nothing in it names a system
OUT/send/audio/        the clips, if they are not embedded
OUT/key/KEEP-PRIVATE-key.json   random id -> system, item, seed, gain, sha256
"""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalogs.files import write_atomically
from evaluation.errors import EvaluationError
from evaluation.listen.material import Material, collect
from evaluation.listen.page import STRINGS, build_page
from evaluation.listen.settings import FORMAT, KEY, PAGE, ListenSettings
from evaluation.listen.store import TYPES, ClipStore
from evaluation.listen.trials import Trials
from evaluation.runs.folder import Run

_SECONDS_PER_RATING = 5.0


@dataclass(frozen=True)
class ListeningTest:
    """What was made. `left_out`: items that are not in the test, by reason. `limited`: clips that stay below the loudness,
    because of their peak. `minutes`: of one session, if every clip is played once and a rating takes five seconds."""

    id: str
    page: Path
    key: Path
    systems: list[str]
    items: int
    common_items: int
    sessions: int
    trials: int
    clips: int
    limited: int
    minutes: float
    left_out: dict[str, int] = field(default_factory=dict)


def make_test(runs: Sequence[Run], out: Path, settings: ListenSettings | None = None) -> ListeningTest:
    """Write a listening test to `out`, a new or empty folder.

    Raises EvaluationError for a folder that is not empty, too few systems, runs without items in common, or audio that
    cannot be read.
    """
    settings = settings or ListenSettings()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise EvaluationError(f"{out} exists and is not empty; give another folder for the test")
    seed = secrets.randbits(64) if settings.seed is None else settings.seed
    rng = random.Random(seed)
    material = collect(runs, settings, rng)
    store = ClipStore(settings, rng)
    test_id = store.new_id()
    trials = Trials(material, settings, store, rng)
    trials.make_checks()
    sessions = [trials.session(number) for number in range(1, settings.sessions + 1)]
    _write_page(out, test_id, settings, material, trials, sessions)
    key = {
        "format": FORMAT,
        "test": test_id,
        "kind": settings.kind,
        "scales": list(settings.scales) if settings.kind == "acr" else [],
        "sessions": settings.sessions,
        "systems": material.systems,
        "reference": settings.reference if settings.kind == "mushra" else None,
        "seed": seed,
        "settings": settings.model_dump(mode="json"),
        "runs": {name: str(run.root.absolute()) for name, run in zip(material.systems, runs, strict=False)},
        "left_out": material.left_out,
        "items": {item.id: {"name": item.name, "list": item.list_name, "text": item.text} for item in material.items},
        "clips": store.rows,
        "trials": trials.key,
    }
    # The key comes last: a test without one was not finished.
    write_atomically(out / KEY, json.dumps(key, indent=1, ensure_ascii=False).encode())
    seconds = [sum(_seconds(trial, store) for trial in session) for session in sessions]
    return ListeningTest(
        test_id,
        out / PAGE,
        out / KEY,
        list(material.systems),
        len(material.items),
        material.common,
        len(sessions),
        max(map(len, sessions)),
        len(store.files),
        sum(bool(row.get("limited")) for row in store.rows.values()),
        sum(seconds) / len(seconds) / 60,
        material.left_out,
    )


def _write_page(
    out: Path,
    test_id: str,
    settings: ListenSettings,
    material: Material,
    trials: Trials,
    sessions: list[list[dict[str, Any]]],
) -> None:
    store = trials.store
    sources: dict[str, dict[str, str]] = {}
    # By id: neither the order in the page nor the time of a file follows the systems.
    for name in sorted(store.files):
        kind, ending = TYPES[store.rows[name]["coding"]]
        sources[name] = {"type": kind}
        if not settings.embed:
            sources[name]["file"] = f"audio/{name}{ending}"
            write_atomically((out / PAGE).parent / sources[name]["file"], store.files[name])
    data = {
        "id": test_id,
        "kind": settings.kind,
        "scales": list(settings.scales) if settings.kind == "acr" else [],
        "title": settings.title,
        "consent": settings.consent,
        "contact": settings.contact,
        "level": trials.level,
        "sessions": sessions,
        "sources": sources,
    }
    audio = store.files if settings.embed else {}
    write_atomically(out / PAGE, build_page(data, settings.language or _language(material), audio).encode())


def _language(material: Material) -> str:
    found = [item.language for item in material.items]
    most = max(sorted(set(found)), key=found.count)
    return most if most in STRINGS else "en"


def _seconds(trial: dict[str, Any], store: ClipStore) -> float:
    clips = [*trial["clips"], *([trial["reference"]] if "reference" in trial else [])]
    return _SECONDS_PER_RATING + float(sum(store.rows[clip]["seconds"] for clip in clips))
