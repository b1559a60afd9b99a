"""The report is one offline page that accounts for everything, on empty, tiny and ordinary corpora."""

from __future__ import annotations

import base64
import errno
import io
import re
import shutil
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from corpus_builders import make_unit, tone, verdict
from hypothesis import given
from hypothesis import strategies as st

from catalogs.corpus.commit import CorpusError, commit_unit, create_corpus
from catalogs.corpus.history import quarantine_now
from catalogs.corpus.schema import DESCRIPTIONS
from catalogs.corpus.shards import to_table
from catalogs.corpus.thresholds import Thresholds, save_thresholds
from catalogs.durations import duration_text
from catalogs.report.charts import Histogram, histogram_svg, ticks
from catalogs.report.clips import encode_small, shape
from catalogs.report.report import build_report
from catalogs.report.spectrogram import spectrogram_png

pytest.importorskip("jinja2")
VOID = {"meta", "link", "br", "hr", "img", "input"}


class _Page(HTMLParser):
    """Collects what a page loads and says, and that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data") and value]
        self.ids += [name] if (name := values.get("id")) else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """SVG shapes: nothing to close."""

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with some of everything. Not to be changed, apart from its report."""
    root = tmp_path_factory.mktemp("report") / "c"
    create_corpus(root, "bells <&> whistles", license="CC0-1.0")
    for n in range(3):
        commit_unit(root, make_unit(f"u{n}", 5))
    unit = make_unit("odd", 5)
    rows = [dict(row) for row in unit.rows]
    rows[0]["text"] = "<script>alert(1)</script> & more"
    rows[1] |= {"dnsmos_ovr": 1.5, "reasons": ["low_dnsmos"]}
    rows[2] |= {"reasons": ["failed_transcribe"], "audio": None}
    commit_unit(root, make_unit("odd", 5, rows=rows))
    described = {
        "segment_id": rows[0]["segment_id"],
        "annotator": "acoustic",
        "full": "A low, warm voice.",
        "status": "ok",
    }
    target = root / "annotations" / "acoustic" / "part.parquet"
    target.parent.mkdir(parents=True)
    pq.write_table(to_table([described], DESCRIPTIONS), target)
    quarantine_now(root, verdict("talks/broken <1>.wav"))
    (root / "prepare.yaml").write_text("profile: small\ntranscribe: {model: whisper-base}\n")
    return root


@pytest.fixture(scope="module")
def report(whole: Path) -> str:
    """Its report."""
    path = build_report(whole)
    assert path == whole / "report.html"
    return path.read_text(encoding="utf-8")


def test_the_page_is_whole_offline_and_safe(report: str) -> None:
    text = report
    page = _Page(text)
    assert page.loads
    assert all(address.startswith(("data:audio/", "data:image/png;")) for address in page.loads)
    assert not re.search(r"https?://|@import|fetch\(|XMLHttpRequest", text)
    assert "<script>alert" not in text
    assert len(page.ids) == len(set(page.ids))


def test_it_says_what_became_of_everything(report: str) -> None:
    text = _Page(report).text
    for words in (
        "bells <&> whistles",
        "14 segments kept of 20",
        "recorded, 4 recordings",
        "3 reference pairs of kept segments",
        "3 pairs for 3 of 14 kept segments",
        "the reference is 2 segments before the target",
        "low_dnsmos poor overall quality (DNSMOS)",
        "the stage transcribe failed on it",
        "talks/broken <1>.wav",
        "A low, warm voice.",
        "English",
        "CC0-1.0",
        "whisper-base",
        "transcribe",
    ):
        assert words in text, words


def test_clips_can_be_heard(report: str) -> None:
    loads = [address for address in _Page(report).loads if address.startswith("data:audio/")]
    assert loads
    for address in loads:
        kind, data = address.removeprefix("data:").split(";base64,")
        assert kind in ("audio/ogg", "audio/flac")
        audio, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
        assert rate == 16_000
        assert len(audio) / rate == pytest.approx(1.5, abs=0.1)
        assert np.abs(audio).max() > 0.1


def test_each_clip_has_its_spectrogram(report: str) -> None:
    loads = _Page(report).loads
    pictures = [address for address in loads if address.startswith("data:image/png;base64,")]
    assert len(pictures) == len(loads) / 2
    for picture in pictures:
        data = base64.b64decode(picture.partition(",")[2])
        assert data.startswith(b"\x89PNG")
        # A column for each 8 ms of 1.5 s.
        assert struct.unpack(">II", data[16:24]) == (187, 64)


@pytest.mark.parametrize("hz", [300.0, 1000.0, 4000.0])
def test_a_tone_is_a_line_at_its_place(hz: float) -> None:
    audio = np.sin(2 * np.pi * hz * np.arange(16_000) / 16_000).astype(np.float32)
    png = spectrogram_png(audio, 16_000)
    at = png.index(b"IDAT") + 4
    lines = np.frombuffer(zlib.decompress(png[at:]), np.uint8).reshape(64, 126)[::-1, 1:]
    top = 2595 * np.log10(1 + 8000 / 700)
    assert abs(int(lines.mean(axis=1).argmax()) - 64 * 2595 * np.log10(1 + hz / 700) / top) < 2.5
    spectrogram_png(np.zeros(10, np.float32), 16_000)


def test_the_audio_budget_is_kept(whole: Path, tmp_path: Path) -> None:
    assert _Page(build_report(whole, tmp_path / "silent.html", audio_bytes=0).read_text(encoding="utf-8")).loads == []


def test_limits_are_drawn_where_they_are(whole: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole, tmp_path / "c"))
    save_thresholds(root, Thresholds(min_dnsmos_ovr=2.25))
    text = build_report(root).read_text(encoding="utf-8")
    chart = re.search(r"<figcaption>DNSMOS overall.*?</figure>", text, re.DOTALL)
    assert chart
    assert re.findall(r'class="lever"[^>]*><span>([^<]+)<', chart.group(0)) == ["2.25"]


@pytest.mark.parametrize("segments", [None, 0, 1])
def test_empty_and_tiny_corpora_have_a_report(tmp_path: Path, segments: int | None) -> None:
    create_corpus(tmp_path / "c")
    if segments is not None:
        commit_unit(tmp_path / "c", make_unit("a", segments))
    page = _Page(build_report(tmp_path / "c").read_text(encoding="utf-8"))
    assert ("Nothing is committed yet" in page.text) == (segments is None)
    assert len(page.loads) == 2 * (segments or 0)


def test_no_corpus_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="not a corpus"):
        build_report(tmp_path)


def test_a_histogram_shows_its_counts() -> None:
    svg = histogram_svg(Histogram("a < b", "dB", 0.0, 10.0, [0, 4, 2], [1, 0, 2], [5.0]))
    assert svg.count('class="kept"') == 2
    assert svg.count('class="rejected"') == 2
    assert "4 kept, 0 rejected" in svg
    assert "a &lt; b" in svg
    heights = [float(height) for height in re.findall(r'class="kept"[^>]*height="([\d.]+)"', svg)]
    assert heights[0] == pytest.approx(2 * heights[1], rel=0.01)


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.03, 0.98) == [0.2, 0.4, 0.6, 0.8]
    assert ticks(-42.0, -13.0) == [-40, -30, -20]
    assert ticks(1.0, 1.0) == [1.0]


@given(st.floats(-900, 900), st.floats(1e-4, 50))
def test_the_ticks_of_an_axis_are_told_apart(low: float, spread: float) -> None:
    svg = histogram_svg(Histogram("x", "", low, low + spread, [1] * 40, [0] * 40))
    labels = re.findall(r'class="tick"[^>]*>([^<]*)<', svg)
    assert len(set(labels)) == len(labels)
    assert all(label == "0" or not label.endswith(".") for label in labels)


def test_durations_read_well() -> None:
    shown = [duration_text(seconds) for seconds in (4.21, 59.94, 59.96, 61, 3599.7, 3660, 360_000)]
    assert shown == ["4.2 s", "59.9 s", "1 min 00 s", "1 min 01 s", "1 h 00 min", "1 h 01 min", "100 h"]


def test_small_audio_is_resampled_and_keeps_its_length() -> None:
    audio = tone(1.0, 440.0, 48_000).astype(np.float32) / 32768
    kind, data = encode_small(audio, 48_000)
    back, rate = soundfile.read(io.BytesIO(data))
    assert kind in ("audio/ogg", "audio/flac")
    assert len(back) / rate == pytest.approx(1.0, abs=0.05)
    assert np.abs(np.fft.rfft(back)).argmax() * rate / len(back) == pytest.approx(440, abs=5)


def test_peaks_follow_the_loudness() -> None:
    assert shape(np.concatenate([np.zeros(1000), np.full(1000, 0.5)]).astype(np.float32), 4) == [0.0, 0.0, 1.0, 1.0]
    assert shape(np.zeros(0, dtype=np.float32), 3) == [0.0]


def test_a_full_disk_is_one_line(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("catalogs.report.report.write_atomically", refuse)
    with pytest.raises(OSError, match="no space left on the disk for the report; free some") as error:
        build_report(whole, tmp_path / "r.html")
    assert error.value.filename == str(tmp_path / "r.html") and "\n" not in str(error.value)
