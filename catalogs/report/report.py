"""The report: one self-contained HTML page, without outside requests, that accounts for every recorded second, with clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogs.corpus.columns import SEGMENT, Column
from catalogs.corpus.commit import corpus_info
from catalogs.corpus.reader import Corpus
from catalogs.corpus.thresholds import REASON_WORDS, Thresholds, load_thresholds
from catalogs.durations import duration_text
from catalogs.files import is_full_disk, write_atomically
from catalogs.query.damaged import asking
from catalogs.query.views import connect, result_rows
from catalogs.report.charts import Histogram, histogram_svg, number_text
from catalogs.report.clips import ClipMaker
from catalogs.report.descriptions import descriptions_section
from catalogs.settings import read_yaml
from catalogs.vocabulary.languages import language, language_name
from catalogs.weights import registry, verify

if TYPE_CHECKING:
    import duckdb

_BINS = 34
_CLIPS_PER_REASON = 3
_KEPT_CLIPS = 8
_ROWS = 30

_OUTCOMES = {
    "kept": "kept",
    "rejected": "rejected",
    "silence": "silence",
    "quarantined": "quarantined",
    "unaccounted": "unaccounted",
}


def build_report(root: str | Path, out: str | Path | None = None, audio_bytes: int = 6_000_000) -> Path:
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
    }
    return environment.get_template("report.html")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _count(value: float | None) -> str:
    return f"{value or 0:,.0f}"


def _usd(dollars: float | None) -> str:
    if dollars is None:
        return ""
    return f"${dollars:,.2f}" if dollars >= 100 or dollars == 0 else f"${dollars:,.4f}"


def _gather(root: Path, connection: duckdb.DuckDBPyConnection, audio_bytes: int) -> dict[str, Any]:
    thresholds = load_thresholds(root)
    clips = ClipMaker(Corpus(root), audio_bytes)
    funnel = result_rows(connection, "SELECT * FROM funnel")
    for row in funnel:
        row["words"] = reason_words(row["reason"])
    settings = _settings(root)
    return {
        "info": corpus_info(root),
        "built": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "totals": _totals(connection),
        "funnel": funnel,
        "outcomes": _outcomes(funnel),
        "languages": _languages(connection),
        "charts": _charts(connection, thresholds),
        "kept_clips": clips.pick(connection, "kept AND duration_s >= 1.5", _KEPT_CLIPS, _VARIED)
        or clips.pick(connection, "kept", _KEPT_CLIPS),
        "descriptions": descriptions_section(root, connection, clips),
        "rejected_clips": _rejected_clips(clips, connection, funnel),
        "pair_clips": _pair_clips(clips, connection),
        "speakers": result_rows(connection, _SPEAKERS),
        "pairs": result_rows(connection, _PAIRS)[0],
        "stages": _stages(connection),
        "quarantine": result_rows(
            connection,
            f"SELECT path, stage, error, attempts, strftime(\"at\", '%Y-%m-%d %H:%M') AS seen "
            f"FROM quarantine ORDER BY stage, path LIMIT {10 * _ROWS}",
        ),
        "licenses": result_rows(connection, _LICENSES),
        "weights": _weights(settings),
        "thresholds": [
            (rule.words, rule.column, "at least" if rule.side == "below" else "at most", number_text(limit))
            for rule, limit in thresholds.limits()
        ],
        "fingerprint": corpus_info(root).get("fingerprint") or "",
    }


def _totals(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    totals = result_rows(
        connection,
        """
        SELECT
            (SELECT coalesce(sum(duration_s), 0) FROM recordings) AS recorded_s,
            (SELECT count(*) FROM recordings) AS recordings,
            (SELECT count(DISTINCT session_id) FROM recordings) AS sessions,
            coalesce(sum(duration_s) FILTER (kept), 0) AS kept_s,
            count(*) AS segments,
            count(*) FILTER (kept) AS kept,
            count(DISTINCT speaker) FILTER (kept) AS speakers,
            count(DISTINCT language) FILTER (kept) AS languages,
            (SELECT count(*) FROM reference_pairs JOIN segments USING (segment_id) WHERE kept) AS pairs,
            (SELECT count(DISTINCT segment_id) FROM descriptions) AS described,
            (SELECT count(*) FROM quarantine) AS quarantined
        FROM segments
        """,
    )[0]
    totals["share"] = totals["kept_s"] / totals["recorded_s"] if totals["recorded_s"] else None
    return totals


def reason_words(reason: str) -> str:
    """Return the meaning of a reason in words; the failure of a stage is named after the stage."""
    if reason.startswith("failed_"):
        return f"the stage {reason.removeprefix('failed_')} failed on it"
    known = {
        "silence": "between the segments: silence, music, noise",
        "quarantined": "recordings that could not be processed",
        "kept": "kept for training",
        "unaccounted": "in neither a segment nor silence (run fsck)",
    }
    return known.get(reason) or REASON_WORDS.get(reason) or reason.replace("_", " ")


def _outcomes(funnel: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the funnel's rows added up by outcome, in the order of the bar."""
    total = sum(row["seconds"] for row in funnel)
    added = []
    for outcome in _OUTCOMES:
        seconds = sum(row["seconds"] for row in funnel if row["outcome"] == outcome)
        if seconds > 0:
            added.append({"outcome": outcome, "seconds": seconds, "share": seconds / total})
    return added


def _languages(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    rows = result_rows(
        connection,
        """
        SELECT language AS code, coalesce(sum(duration_s) FILTER (kept), 0) AS kept_s, sum(duration_s) AS all_s,
            count(*) FILTER (kept) AS kept, count(DISTINCT speaker) FILTER (kept) AS speakers,
            avg(duration_s) FILTER (kept) AS mean_s, median(dnsmos_ovr) FILTER (kept) AS dnsmos
        FROM segments WHERE language IS NOT NULL GROUP BY ALL ORDER BY kept_s DESC, all_s DESC, code
        """,
    )
    most = max((row["kept_s"] for row in rows), default=0) or 1
    for row in rows:
        row |= {"name": language_name(row["code"]), "bar": row["kept_s"] / most, "known": language(row["code"])}
    return rows


def _charts(connection: duckdb.DuckDBPyConnection, thresholds: Thresholds) -> list[dict[str, str]]:
    limits: dict[str, list[float]] = {}
    for rule, limit in thresholds.limits():
        limits.setdefault(rule.column, []).append(limit)
    shown = [column for column in SEGMENT if column.histogram]
    return [
        {"label": data.label, "unit": data.unit, "column": column.name, "svg": histogram_svg(data)}
        for column, data in _histograms(connection, shown, limits)
    ]


def _histograms(
    connection: duckdb.DuckDBPyConnection, shown: Sequence[Column], limits: Mapping[str, list[float]]
) -> Iterator[tuple[Column, Histogram]]:
    """Count segments in bins over the 0.5 to 99.5 % quantiles and the limits near them; the end bins hold all values beyond.

    Columns without a finite value are left out. All bins are counted in one query: to plan one over the view `segments` takes
    longer than to read a small corpus. DuckDB holds all values of a column for its quantiles, so each column has its own query.
    """
    ranges = {}
    for column in shown:
        ends = f"quantile_cont({column.name}, [0.005, 0.995]) FILTER (isfinite({column.name}))"
        found = connection.execute(f"SELECT {ends} FROM segments").fetchall()[0][0]
        if found is not None:
            ranges[column] = _range([float(end) for end in found], limits.get(column.name, ()))
    if not ranges:
        return
    bins = ", ".join(f"histogram({_bin_sql(column.name, *ends)})" for column, ends in ranges.items())
    counted = connection.execute(f"SELECT kept, {bins} FROM segments GROUP BY kept").fetchall()
    for at, (column, (low, high)) in enumerate(ranges.items(), 1):
        counts = {row[0]: row[at] or {} for row in counted}
        kept, rejected = ([counts.get(side, {}).get(n, 0) for n in range(_BINS)] for side in (True, False))
        drawn = [limit for limit in limits.get(column.name, ()) if low <= limit <= high]
        yield column, Histogram(column.histogram or column.name, column.unit, low, high, kept, rejected, drawn)


def _range(ends: Sequence[float], limits: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the axis for values between `ends`, with some margin."""
    low, high = ends
    spread = max(high - low, 1e-3)
    for limit in limits:  # A limit far from all data is left out: it would squeeze the data into one bin.
        if low - spread <= limit <= high + spread:
            low, high = min(low, limit), max(high, limit)
    margin = 0.02 * max(high - low, 1e-3)
    return low - margin, high + margin


def _bin_sql(column: str, low: float, high: float) -> str:
    """Return the number of a value's bin, null for a value that is not finite."""
    place = f"CAST(floor(({column} - {low!r}) / {(high - low) / _BINS!r}) AS INT)"
    return f"CASE WHEN isfinite({column}) THEN greatest(0, least({_BINS - 1}, {place})) END"


def _rejected_clips(
    clips: ClipMaker, connection: duckdb.DuckDBPyConnection, funnel: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    rejected = [row for row in funnel if row["outcome"] == "rejected"]
    found = clips.of_reasons(connection, [row["reason"] for row in rejected], _CLIPS_PER_REASON)
    return [
        {"reason": row["reason"], "words": row["words"], "count": row["segments_any"], "clips": found[row["reason"]]}
        for row in rejected
        if found[row["reason"]]
    ]


def _pair_clips(clips: ClipMaker, connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    rows = result_rows(
        connection,
        """
        SELECT pair.segment_id, reference_id, cosine, gap FROM reference_pairs AS pair
        JOIN segments AS target USING (segment_id)
        JOIN segments AS reference ON reference.segment_id = pair.reference_id
        WHERE target.kept AND reference.kept ORDER BY md5(pair.segment_id || reference_id) LIMIT 3
        """,
    )
    pairs = []
    for row in rows:
        reference = clips.pick(connection, "segment_id = ?", 1, given=row["reference_id"])
        target = clips.pick(connection, "segment_id = ?", 1, given=row["segment_id"])
        if reference and target:
            pairs.append({"reference": reference[0], "target": target[0], "cosine": row["cosine"], "gap": row["gap"]})
    return pairs


def _stages(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    rows = result_rows(
        connection,
        "SELECT stage, busy_s, (SELECT sum(seconds) FROM units) / nullif(busy_s, 0) AS speed "
        "FROM stages ORDER BY busy_s DESC",
    )
    most = max((row["busy_s"] for row in rows), default=0) or 1
    return [row | {"bar": row["busy_s"] / most} for row in rows]


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


#: Sort order: described segments first, and one clip of every speaker before a second clip of any.
_VARIED = "description IS NULL, row_number() OVER (PARTITION BY speaker ORDER BY md5(segment_id))"

_SPEAKERS = f"""
SELECT speaker, count(*) AS clips, sum(duration_s) AS seconds, mode(gender) AS gender, mode(age) AS age,
    mode(language) AS language, median(pitch_hz) AS pitch_hz, count(DISTINCT session_id) AS sessions,
    sum(coalesce(pairs, 0)) AS pairs
FROM segments LEFT JOIN (SELECT segment_id, count(*) AS pairs FROM reference_pairs GROUP BY ALL) USING (segment_id)
WHERE kept AND speaker IS NOT NULL GROUP BY speaker ORDER BY seconds DESC, speaker LIMIT {_ROWS}
"""

_PAIRS = """
SELECT count(*) AS pairs, count(DISTINCT segment_id) AS targets, median(cosine) AS cosine, min(cosine) AS least,
    (SELECT count(*) FROM segments WHERE kept) AS kept
FROM reference_pairs JOIN segments USING (segment_id) WHERE kept
"""

_LICENSES = """
SELECT coalesce(license, 'not stated') AS license, count(*) AS recordings, sum(duration_s) AS seconds
FROM recordings GROUP BY ALL ORDER BY seconds DESC
"""
