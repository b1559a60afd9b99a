"""Stands in for `voxmill consent` in tests of the server: the same options and files, and the verdict that a plan says.

    python consent_program.py FOLDER ask|check ...

FOLDER/plan.json: {"verdict": ..., "expires": ..., "act": "answer", "fail" or "hang"}. FOLDER/calls gets a line for each call.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer one call."""
    folder, verb, *words = sys.argv[1:]
    with (Path(folder) / "calls").open("a") as file:
        file.write(json.dumps([verb, *words]) + "\n")
    plan = {"verdict": "plausible", "expires": None, "act": "answer"}
    plan |= json.loads((Path(folder) / "plan.json").read_text()) if (Path(folder) / "plan.json").exists() else {}
    options = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
    store = Path(options["store"])
    if plan["act"] == "hang":
        time.sleep(600)
    if plan["act"] == "fail":
        sys.exit("voxmill: /secret/path is missing")
    if verb == "ask":
        _write(store / "challenges", _challenge(options))
        return
    record = _record(Path(words[0]), Path(options["reference"]), options["challenge"], plan)
    _write(store, record)
    sys.exit(0 if record["verdict"] == "plausible" else 1)


def record_id(statement: str, references: list[str], challenge: str) -> str:
    """The id as `pipeline.voice.consent.record` makes it; this program imports nothing, so that it starts fast."""
    return hashlib.sha256("\n".join([statement, *references, challenge]).encode()).hexdigest()[:16]


def _challenge(options: dict[str, str]) -> dict[str, Any]:
    return {
        "id": "c" * 16,
        "speaker": options["speaker"],
        "recipient": options["to"],
        "purposes": [options["purpose"]],
        "language": options["language"],
        "sentence": f"I am {options['speaker']}.",
        "words": ["apple", "river", "candle", "doctor"],
        "expires": (datetime.now(UTC) + timedelta(hours=24)).isoformat(timespec="seconds"),
    }


def _record(statement: Path, reference: Path, challenge: str, plan: dict[str, Any]) -> dict[str, Any]:
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (statement, reference)]
    return {
        "id": record_id(digests[0], digests[1:], challenge),
        "verdict": plan["verdict"],
        "reasons": ["the voice is another one"] if plan["verdict"] == "refused" else [],
        "expires": plan["expires"],
        "statement_sha256": digests[0],
        "reference_sha256": digests[1:],
    }


def _write(folder: Path, value: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{value['id']}.json").write_text(json.dumps(value))
    print(json.dumps(value))


if __name__ == "__main__":
    main()
