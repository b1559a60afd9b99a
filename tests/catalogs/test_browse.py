"""`voxmill browse`: what its server answers, to whom, and that no request leaves the corpus or writes to it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("starlette", reason="the extra browse is not installed")
pytest.importorskip("uvicorn", reason="the extra browse is not installed")

from browsing import Client, make_corpus, served, served_elsewhere

from catalogs.corpus.marks import read_marks
from catalogs.corpus.reader import Corpus
from catalogs.exchange.importing import import_corpus
from catalogs.inspection.sound import spectrogram
from catalogs.query.views import query

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus. Tests add marks to it."""
    return make_corpus(tmp_path_factory.mktemp("browse") / "corpus", units=3)


@pytest.fixture(scope="module")
def client(corpus: Path) -> Iterator[Client]:
    with served(corpus) as url:
        yield Client(url)


@pytest.fixture(scope="module")
def one(client: Client) -> str:
    """The first segment."""
    return ids(client)[0]


def ids(client: Client, **asked: Any) -> list[str]:
    return [row["segment_id"] for row in client.post("/api/page", asked)["rows"]]


def files(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file of a corpus that is not a copy or a mark."""
    kinds = ("units", "segments", "index", "recordings", "references")
    found = [path for kind in kinds for path in (root / kind).rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def test_pages_filters_and_counts_are_those_of_the_catalog(corpus: Path, client: Client) -> None:
    everything = client.post("/api/page", {})
    assert len(everything["rows"]) == 18 and not everything["more"]
    assert not {"shard", "row", "path"} & everything["rows"][0].keys(), "no path of a file is sent to the browser"
    assert set(ids(client, facets={"kept": ["false"]})) == {
        row[0] for row in query(corpus, "select segment_id from segments where not kept")[1]
    }
    assert len(ids(client, search="CLIP 2")) == 3 and ids(client, search="100%_") == []
    assert len(ids(client, search="warm voice of talk 1")) == 2, "descriptions are searched, too"
    assert len(ids(client, where="snr_db > 23 and language = 'en'")) == 4
    assert len(ids(client, where="segment_id in (select segment_id from descriptions) -- those")) == 6
    by_snr = client.post("/api/page", {"sort": "snr_db", "descending": True})["rows"]
    assert [row["sorted_by"] for row in by_snr] == sorted((row["sorted_by"] for row in by_snr), reverse=True)
    assert ids(client, offset=15) == [row["segment_id"] for row in everything["rows"][15:]]
    counts = client.post("/api/facets", {"facets": {"language": ["de"]}})
    assert counts["segments"] == 6 and counts["facets"]["language"] == [["de", 6]]
    assert dict(counts["facets"]["kept"]) == {"true": 3, "false": 3}


def test_a_clip_has_all_that_is_known_of_it(corpus: Path, client: Client) -> None:
    one = ids(client, search="unit 0 clip 3")[0]
    clip = client.get(f"/api/clip/{one}")
    assert clip["scores"]["snr_db"] == 23.0 and [word["word"] for word in clip["words"]] == ["unit", "0", "clip", "3"]
    assert 100 < len(clip["peaks"]) <= 1200 and max(clip["peaks"]) > 0.2 and "embedding" not in clip["scores"]
    context = client.get(f"/api/clip/{one}/context")
    assert [near["seq"] for near in context["neighbors"]] == [0, 1, 2, 3, 4, 5]
    (reference,) = client.get(f"/api/clip/{ids(client, search='unit 0 clip 2')[0]}/context")["references"]
    assert reference["text"] == "unit 0 clip 0" and reference["cosine"] == pytest.approx(0.8)
    (said,) = client.get(f"/api/clip/{ids(client, search='unit 0 clip 1')[0]}/context")["descriptions"]
    assert said["full"] == "a warm voice of talk 0"
    without = ids(client, facets={"reason": ["too_short"]})[0]
    assert client.get(f"/api/clip/{without}")["peaks"] == []
    assert client.ask("GET", f"/api/clip/{without}/audio")[0] == 404


def test_ids_of_imported_clips_are_named_whatever_they_hold(tmp_path: Path) -> None:
    names = ["speaker/1.wav", "..", "é 水?&#%2F", "plain"]
    for number in range(len(names)):
        soundfile.write(tmp_path / f"{number}.wav", np.full(8000, 0.1 * number + 0.1), 16_000)
    rows = [{"id": name, "audio": f"{number}.wav", "text": f"word {number}"} for number, name in enumerate(names)]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_corpus(tmp_path / "all.jsonl", tmp_path / "c")
    with served(tmp_path / "c") as url:
        client = Client(url)
        assert sorted(ids(client)) == sorted(names)
        for number, name in enumerate(names):
            # As the page encodes it.
            path = f"/api/clip/{quote(quote(name, safe='').replace('.', '%2E'), safe='')}"
            assert client.get(path)["segment_id"] == name
            assert client.ask("GET", f"{path}/audio")[0] == 200
            client.post(f"{path}/mark", {"text": f"said {number}"})
    assert query(tmp_path / "c", "select text from segments order by 1")[1] == [(f"said {n}",) for n in range(4)]


def test_audio_is_the_stored_file_whole_or_in_parts(corpus: Path, client: Client) -> None:
    one = ids(client, search="unit 1 clip 0")[0]
    status, headers, data = client.ask("GET", f"/api/clip/{one}/audio", headers={"X-Voxmill": ""})
    assert status == 200 and headers["content-type"] == "audio/flac" and headers["accept-ranges"] == "bytes"
    assert data == Corpus(corpus).audio_buffer(one).to_pybytes() and soundfile.info(io.BytesIO(data)).frames == 8000
    size = len(data)
    for asked, part in {"bytes=0-99": data[:100], "bytes=100-": data[100:], "bytes=-50": data[-50:]}.items():
        status, headers, body = client.ask("GET", f"/api/clip/{one}/audio", headers={"Range": asked})
        assert status == 206 and body == part and headers["content-range"].endswith(f"/{size}")
    for wrong in ("bytes=5-2", f"bytes={size}-", "bytes=-", "lines=1-2", "bytes=0-1,4-5", "bytes=-0"):
        assert client.ask("GET", f"/api/clip/{one}/audio", headers={"Range": wrong})[0] == 416
    status, headers, levels = client.ask("GET", f"/api/clip/{one}/spectrogram")
    assert len(levels) == 128 * int(headers["x-columns"]) and headers["x-top-hz"] == "8000"


def test_a_tone_is_at_its_frequency_in_the_spectrogram() -> None:
    rate, hertz = 16_000, 1000.0
    levels, top = spectrogram(np.sin(2 * np.pi * hertz * np.arange(rate) / rate).astype(np.float32), rate)
    row = int(levels.mean(axis=1).argmax())
    mel = row / 127 * 2595 * np.log10(1 + top / 700)
    assert 700 * (10 ** (mel / 2595) - 1) == pytest.approx(hertz, rel=0.05) and levels.max() == 255


def test_marks_undo_and_what_the_catalog_says(corpus: Path, client: Client) -> None:
    before = files(corpus)
    kept, rejected = ids(client, search="unit 2 clip 0")[0], ids(client, search="unit 2 clip 1")[0]
    client.post(f"/api/clip/{kept}/mark", {"verdict": "drop", "note": "noise"})
    client.post(f"/api/clip/{rejected}/mark", {"verdict": "keep"})
    last = client.post(f"/api/clip/{rejected}/mark", {"verdict": "keep", "text": "corrected"})
    assert last["made"] == 3
    shown = client.get(f"/api/clip/{rejected}")
    rows = dict(query(corpus, "select segment_id, reasons from segments where human is not null")[1])
    assert rows == {kept: ["human"], rejected: []}
    assert shown["scores"]["text"] == "corrected" and shown["scores"]["uncorrected_text"] == "unit 2 clip 1"
    assert ids(client, search="corrected") == [rejected]
    unit = query(corpus, f"select distinct unit from marks where segment_id = '{kept}'")[1][0][0]
    assert (corpus / "units" / unit[:2] / f"{unit}.json").is_file()
    undone = client.post("/api/undo", {"mark_id": last["mark_id"]})
    assert undone == {"segment_id": rejected, "verdict": "keep", "made": 2}
    assert client.get(f"/api/clip/{rejected}")["scores"]["text"] == "unit 2 clip 1"
    assert client.ask("POST", "/api/undo", json.dumps({"mark_id": last["mark_id"]}).encode())[0] == 400
    assert files(corpus) == before, "nothing that was there has changed"


def test_others_are_shown_to_who_has_decided(tmp_path: Path) -> None:
    root = make_corpus(tmp_path / "c", 1)
    with served(root, "Ann") as one, served(root, "Bob") as other:
        ann, bob = Client(one), Client(other)
        segment = ids(ann)[0]
        mark = ann.post(f"/api/clip/{segment}/mark", {"verdict": "drop"})
        assert bob.get(f"/api/clip/{segment}")["others"] == []
        assert bob.ask("POST", "/api/undo", json.dumps({"mark_id": mark["mark_id"]}).encode())[0] == 400
        bob.post(f"/api/clip/{segment}/mark", {"verdict": "keep"})
        assert [said["by"] for said in bob.get(f"/api/clip/{segment}")["others"]] == ["Ann"]
    assert len(read_marks(root)) == 2
    with served(root, "Ann") as again:
        (pair,) = Client(again).get("/api/agreement")["pairs"]
    assert (pair["first"], pair["second"], pair["agree"]) == ("Ann", "Bob", 0)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (421, {"Host": "evil.example"}),
        (421, {"Host": "127.0.0.1"}),
        (400, {"Host": ""}),
        (403, {"Origin": "https://evil.example"}),
        (403, {"Origin": "null"}),
        (401, {"Cookie": ""}),
        (401, {"Cookie": "voxmill=x"}),
        (403, {"X-Voxmill": ""}),
    ],
)
def test_strangers_are_refused(client: Client, status: int, headers: dict[str, str]) -> None:
    assert client.ask("GET", "/api/start", headers=headers)[0] == status
    port = urlsplit(client.url).port
    assert client.ask("GET", "/api/start", headers={"Host": f"localhost:{port}"})[0] == 200
    assert client.ask("GET", "/api/start", headers={"Host": f"evil.example:{port}"})[0] == 421


def test_the_page_has_its_headers_and_the_token_works_for_it_only(client: Client) -> None:
    path = urlsplit(client.url)._replace(scheme="", netloc="").geturl()
    status, headers, body = client.ask("GET", path, headers={"Cookie": ""})
    assert status == 200 and "HttpOnly; SameSite=Strict" in headers["set-cookie"]
    assert (
        "default-src 'none'" in headers["content-security-policy"]
        and b"http://" not in body
        and b"https://" not in body
    )
    assert client.ask("GET", f"/api/start?{path.partition('?')[2]}", headers={"Cookie": ""})[0] == 401
    assert client.ask("GET", "/?token=wrong", headers={"Cookie": ""})[0] == 401
    for name in ("app.py", "..%2fapp.py", "%2e%2e/corpus.json", "wavesurfer.license.md"):
        assert client.ask("GET", f"/{name}")[0] in (404, 405)
    assert client.ask("GET", "/wavesurfer.esm.js")[0] == 200


def test_other_machines_need_a_flag(tmp_path: Path) -> None:
    root = make_corpus(tmp_path / "c", 1, 3)
    with pytest.raises(ValueError, match="--allow-remote"), served(root, host="0.0.0.0"):
        pass
    with served(root, host="0.0.0.0", allow_remote=True) as url:
        client, port = Client(url), urlsplit(url).port
        assert client.ask("GET", "/api/start", headers={"Host": f"192.168.1.7:{port}"})[0] == 200
        assert client.ask("GET", "/api/start", headers={"Host": f"rebound.example:{port}"})[0] == 421
        assert client.ask("GET", "/api/start", headers={"Cookie": ""})[0] == 401


@pytest.mark.parametrize(
    "where",
    [
        "true) union select 1 from read_text('/etc/passwd') --",
        "segment_id in (select content from read_text('/etc/passwd'))",
        "segment_id in (select content from read_text('corpus.json'))",
        "segment_id in (from 'index/x.parquet')",
        "segment_id in (from glob('/*'))",
        "segment_id in (from query('from segments'))",
        "exists (from duckdb_settings())",
        "exists (from information_schema.tables)",
        "exists (from pg_catalog.pg_class)",
        "exists (from duckdb_secrets)",
        "1; drop view segments",
        "true); attach 'x.db' --",
        "copy segments to 'x'",
        "true) or (true",
        "true) group by (1",
        "true, false",
        "true order by 1",
        "(",
        "",
        "nonsense > 3",
        "kept = 'x'",
        "(" * 3000 + "true" + ")" * 3000,
        "not " * 900 + "true",
        "text = '\x00'",
        "error('planted')",
    ],
)
def test_a_condition_reads_views_only(corpus: Path, client: Client, where: str) -> None:
    status, _, body = client.ask("POST", "/api/page", json.dumps({"where": where}).encode())
    harmless = ("", "text = '\x00'")
    assert status == (200 if where in harmless else 400), body
    assert (b"root:" not in body and b"\n" not in body.strip()) or status == 200
    assert len(ids(client)) == 18


def test_a_slow_condition_is_stopped(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from catalogs.browse.catalog import Catalog, SlowQueryError

    catalog = Catalog(corpus, timeout_s=0.3)
    with pytest.raises(SlowQueryError, match=r"0\.3 s"):
        catalog.rows("SELECT count(*) FROM range(100000) AS a, range(100000) AS b WHERE a.range + b.range = 7")
    assert catalog.rows("SELECT 1 AS one") == [{"one": 1}]
    catalog.close()


_TEXT = st.text(max_size=30)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_ASKED = st.fixed_dictionaries(
    {},
    optional={
        "search": _TEXT | _JSON,
        "where": _TEXT | _JSON | st.sampled_from(["kept", "snr_db >", "reasons[1] = 'x'", "text like '%'"]),
        "facets": st.dictionaries(st.sampled_from(["kept", "language", "x"]), st.lists(_TEXT, max_size=3) | _JSON)
        | _JSON,
        "sort": st.sampled_from(["snr_db", "text", "x"]) | _JSON,
        "offset": st.integers() | _JSON,
        "verdict": st.sampled_from(["keep", "drop", "maybe"]) | _JSON,
        "text": _JSON,
        "words": _JSON,
        "note": _JSON,
        "mark_id": _JSON,
    },
)
_PATHS = st.sampled_from(["/", "/api/start", "/api/page", "/api/facets", "/api/agreement", "/api/undo", "/browse.js"])
_CLIPS = st.builds(
    lambda segment, what: f"/api/clip/{quote(segment, safe='')}{what}",
    st.sampled_from(["SEGMENT", "..", "../../corpus.json", "'; drop"]) | st.text(max_size=12),
    st.sampled_from(["", "/context", "/audio", "/spectrogram", "/mark", "/x"]),
)


@settings(max_examples=80)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"]),
    path=_PATHS | _CLIPS | st.text(max_size=20).map(lambda text: "/" + quote(text, safe="/?=&%")),
    body=_ASKED.map(lambda asked: json.dumps(asked).encode()) | st.binary(max_size=60),
    ranges=st.sampled_from(["", "bytes=0-10"]) | st.text("bytes=-0123456789,", max_size=20),
)
def test_no_request_is_an_error_of_the_server(
    client: Client, one: str, method: str, path: str, body: bytes, ranges: str
) -> None:
    status, _, _ = client.ask(method, path.replace("SEGMENT", one), body, {"Range": ranges.strip()})
    assert status < 500


def test_a_request_has_a_size(client: Client) -> None:
    assert client.ask("POST", "/api/page", b" " * (2 << 20))[0] == 413
    assert client.ask("POST", "/api/page", b"[" * 100_000)[0] == 400


def test_the_command_prints_its_address_and_ends_on_ctrl_c(corpus: Path) -> None:
    with served_elsewhere(corpus, "Zoé") as url:
        assert Client(url).get("/api/start")["by"] == "Zoé"


def test_what_is_wrong_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "voxmill.cli", "browse", str(tmp_path), "--no-open"],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "corpus" in done.stderr
