"""The report: one self-contained HTML page, without outside requests, that accounts for every recorded second, with clips."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogs.corpus.commit import corpus_info
from catalogs.corpus.reader import Corpus
from catalogs.corpus.thresholds import load_thresholds
from catalogs.durations import duration_text
from catalogs.files import is_full_disk, write_atomically
from catalogs.query.damaged import asking
from catalogs.query.views import connect
from catalogs.report import tables
from catalogs.report.charts import number_text
from catalogs.report.clips import ClipMaker, ids_of_reasons, kept_ids
from catalogs.report.descriptions import descriptions_section, example_ids
from catalogs.report.scan import scan
from catalogs.report.scores import scores_section
from catalogs.settings import read_yaml
from catalogs.weights import registry, verify

if TYPE_CHECKING:
    import duckdb

_CLIPS_PER_REASON = 3
_KEPT_CLIPS = 8
_PAIRS = 3
_AUDIO_BYTES = 2_500_000


def build_report(root: str | Path, out: str | Path | None = None, audio_bytes: int = _AUDIO_BYTES) -> Path:
    """Write the report of a corpus (default: CORPUS/report.html) and return its path.

    `audio_bytes` limits the size of the clips in the page. An empty corpus works. Raises CorpusError if `root` is not a corpus,
    and ReportError if jinja2 is missing.
    """
    root = Path(root)
    target = Path(out) if out is not None else root / "report.html"
    corpus_info(root)
    with connect(root) as connection, asking(root):
        page = _render(_gather(root, connection, audio_bytes))
    try:
        write_atomically(target, page.encode())
    except OSError as error:
        if not is_full_disk(error):
            raise
        words = "no space left on the disk for the report; free some, or give another place with -o"
        raise OSError(error.errno, words, str(target)) from None
    return target


class ReportError(RuntimeError):
    """The report cannot be made; the message is one line that says what to do."""


def _render(values: dict[str, Any]) -> str:
    return str(_template().render(values))


@cache
def _template() -> Any:
    """Return the compiled page. To compile it takes longer than to fill it in."""
    try:
        import jinja2
    except ImportError:
        raise ReportError("the report needs jinja2; run: pip install 'voxmill[report]'") from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "duration": duration_text,
        "number": number_text,
        "percent": _percent,
        "count": _count,
        "usd": _usd,
        "json": _json,
    }
    return environment.get_template("report.html")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _count(value: float | None) -> str:
    return f"{value or 0:,.0f}"


def _json(value: Any) -> str:
    """Return JSON that may stand within a script element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _usd(dollars: float | None) -> str:
    if dollars is None:
        return ""
    return f"${dollars:,.2f}" if dollars >= 100 or dollars == 0 else f"${dollars:,.4f}"


def _gather(root: Path, connection: duckdb.DuckDBPyConnection, audio_bytes: int) -> dict[str, Any]:
    scan(connection)
    thresholds = load_thresholds(root)
    funnel = tables.funnel(connection)
    settings = _settings(root)
    kept, rejected = kept_ids(connection, _KEPT_CLIPS), ids_of_reasons(connection, _CLIPS_PER_REASON)
    pairs, examples = tables.some_pairs(connection, _PAIRS), example_ids(connection)
    reasons = [row for row in funnel if row["reason"] in rejected]
    # In the order of importance: the page has room for so much audio.
    wanted = [
        *kept,
        *(id_ for row in reasons for id_ in rejected[row["reason"]]),
        *(id_ for pair in pairs for id_ in (pair["reference_id"], pair["segment_id"])),
        *(id_ for ids in examples.values() for id_ in ids),
    ]
    clips = ClipMaker(Corpus(root), audio_bytes).load(connection, wanted)
    return {
        "info": corpus_info(root),
        "corpus": shlex.quote(str(root)),
        "built": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "totals": tables.totals(connection),
        "funnel": funnel,
        "outcomes": tables.outcomes(funnel),
        "languages": tables.languages(connection),
        "scores": scores_section(connection, thresholds),
        "kept_clips": [clips[id_] for id_ in kept if id_ in clips],
        "descriptions": descriptions_section(root, connection, examples, clips),
        "rejected_clips": [
            {"reason": row["reason"], "words": row["words"], "count": row["segments_any"], "clips": found}
            for row in reasons
            if (found := [clips[id_] for id_ in rejected[row["reason"]] if id_ in clips])
        ],
        "pair_clips": [
            pair | {"reference": clips[pair["reference_id"]], "target": clips[pair["segment_id"]]}
            for pair in pairs
            if pair["reference_id"] in clips and pair["segment_id"] in clips
        ],
        "speakers": tables.speakers(connection),
        "balance": tables.balance(connection),
        "lengths": tables.lengths(connection),
        "pairs": tables.pairs(connection),
        "stages": tables.stages(connection),
        "quarantine": tables.quarantine(connection),
        "licenses": tables.licenses(connection),
        "weights": _weights(settings),
        "thresholds": [
            (rule.words, rule.column, "at least" if rule.side == "below" else "at most", number_text(limit))
            for rule, limit in thresholds.limits()
        ],
        "fingerprint": corpus_info(root).get("fingerprint") or "",
    }


def _settings(root: Path) -> dict[str, Any]:
    path = root / "prepare.yaml"
    return read_yaml(path) if path.is_file() else {}


def _weights(settings: dict[str, Any]) -> list[verify.Weights]:
    """Return the pretrained weights that the settings name; weights that no stage uses are not listed."""
    known = registry.registry()
    groups = [group for group in settings.values() if isinstance(group, dict)]
    named = {value: None for group in groups for value in group.values() if isinstance(value, str)}
    if (settings.get("separate") or {}).get("mode") == "off":
        named.pop(settings["separate"].get("model"), None)
    always = [name for name in ("silero-vad", "dnsmos") if settings]
    return [known[name] for name in dict.fromkeys([*always, *named]) if name in known]
