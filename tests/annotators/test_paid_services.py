"""Full passes of gemini, gemini-batch and chat over real speech, against servers of their wire formats with every fault planted.

Each fault has a voice of its own with two clips, which are asked about in one request. The first request about them has the fault.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from datetime import date
from pathlib import Path

import pytest
import soundfile
from asked_clips import KEY, clean_environment
from corpus_builders import FINGERPRINT, flac, make_unit
from fakes import gemini_server, openai_server
from fakes.annotator_service import Service
from fakes.gemini_server import GeminiServer
from fakes.openai_server import OpenAIServer
from fakes.voices_heard import pcm_hash
from paid_corpus import Quick, rows_of

from annotators.paid.clips import pcm_of
from annotators.paid.ledger import Ledger
from annotators.paid.paid_pass import describe_paid
from annotators.paid.pass_options import (
    LEDGER,
    CannotWorkError,
    OtherModelError,
    PassOptions,
    PassStoppedError,
    QuotaUsedError,
)
from annotators.providers.chat import Chat
from annotators.providers.gemini import Gemini
from annotators.providers.gemini_batch import GeminiBatch
from annotators.providers.remote import RemoteProvider
from catalogs.corpus.commit import bind_fingerprint, commit_unit, create_corpus
from catalogs.corpus.reader import Corpus

CORPORA = Path(__file__).resolve().parents[3] / "shared" / "corpora"
pytestmark = pytest.mark.skipif(not (CORPORA / "manifest.jsonl").is_file(), reason="no ../shared/corpora")

OK, AGAIN, ALONE = ("ok", 1), ("ok", 2), ("ok", 2)
"""Status of the clips and how often each is asked about: at once; again after a fault that passes; alone after one of the group."""
GEMINI = {
    "": OK, "fenced": OK, "no_usage": OK, "echo_ok": OK,
    "429": AGAIN, "500": AGAIN, "503_html": AGAIN, "slow": AGAIN, "drop": AGAIN, "half": AGAIN, "empty": AGAIN, "not_json": AGAIN,
    "deep": AGAIN, "400": ALONE, "echo": ALONE, "truncated": ALONE, "missing": ALONE, "swapped": ALONE, "duplicate": ALONE,
    "blocked": ALONE, "safety": ALONE, "max_tokens": ALONE, "continuation": ALONE, "thoughts_only": ALONE, "unknown_finish": ALONE,
}  # fmt: skip
CHAT = {
    "": OK, "fenced": OK, "no_usage": OK, "echo_ok": OK, "think": OK, "think_closed": OK, "reasoning": OK,
    "429": AGAIN, "500": AGAIN, "503_html": AGAIN, "slow": AGAIN, "drop": AGAIN, "half": AGAIN, "empty": AGAIN, "not_json": AGAIN,
    "deep": AGAIN, "400": ALONE, "400_flat": ALONE, "422": ALONE, "echo": ALONE, "truncated": ALONE, "missing": ALONE,
    "swapped": ALONE, "duplicate": ALONE, "blocked": ALONE, "refusal": ALONE, "length": ALONE, "think_open": ALONE,
}  # fmt: skip
BATCH = {
    "": OK, "fenced": OK, "no_usage": OK,
    "429": AGAIN, "500": AGAIN, "429_day": AGAIN, "400": AGAIN, "empty": AGAIN, "truncated": ALONE, "missing": ALONE,
    "swapped": ALONE, "duplicate": ALONE, "blocked": ALONE, "safety": ALONE, "max_tokens": ALONE, "thoughts_only": ALONE,
}  # fmt: skip
LASTING = {
    "blocked": ("blocked:PROHIBITED_CONTENT", 2), "safety": ("blocked:SAFETY", 2), "max_tokens": ("failed:max_tokens", 2),
    "truncated": ("failed:invalid: the answer holds no complete JSON object of the form asked for", 2),
    "wrong_enum": ("failed:invalid: gender is 'robot'", 2), "thoughts_only": ("failed:empty", 2),
}  # fmt: skip
"""Faults of every request about a voice: each clip is final after it was asked about alone."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    clean_environment(monkeypatch)
    monkeypatch.setenv("VOXMILL_CHAT_API_KEY", KEY)


def speech(folder: Path, voices: list[str]) -> dict[str, list[str]]:
    """Commit a corpus of real speech with two clips per voice, in two units. Return the hashes of what a service gets by voice."""
    lines = [json.loads(line) for line in (CORPORA / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    chosen = [line for line in lines if line["path"].startswith(("ravdess", "emodb"))][: 2 * len(voices)]
    assert len(chosen) == 2 * len(voices)
    create_corpus(folder)
    bind_fingerprint(folder, FINGERPRINT)
    hashes: dict[str, list[str]] = {}
    half = len(voices) // 2
    for number, part in enumerate((voices[:half], voices[half:])):
        unit = make_unit(f"unit{number}", 2 * len(part) + 1, 1.5)
        for place, row in enumerate(unit.rows[:-1]):
            voice = part[place // 2]
            entry = chosen[2 * voices.index(voice) + place % 2]
            # Clips of one voice differ in length by more than the canary allows.
            samples, rate = soundfile.read(CORPORA / entry["path"], dtype="int16", always_2d=True)
            samples = samples[rate // 2 : int(rate * (1.4 if place % 2 else 3.0)), 0]
            audio = flac(samples, rate)
            row |= {"audio": audio, "sample_rate": rate, "duration_s": len(samples) / rate, "speaker": f"v-{voice}"}
            hashes.setdefault(voice, []).append(pcm_hash(pcm_of(audio)))
        commit_unit(folder, unit)
    return hashes


def plant(server: Service, hashes: dict[str, list[str]], faults: dict[str, str], times: int = 1) -> None:
    """Let the first requests about each voice have its fault."""
    for voice, fault in faults.items():
        for nth in range(1, times + 1):
            for clip in hashes[voice]:
                server.fail_hash(clip, nth, fault)


def check_pass(root: Path, server: Service, hashes: dict[str, list[str]], wanted: dict[str, tuple[str, int]]) -> None:
    """Assert the status of each clip, how often it was asked about, the money, and that the key is nowhere."""
    (folder,) = (root / "annotations").iterdir()
    rows = rows_of(root, folder.name)
    corpus = Corpus(root)
    voices = dict(zip(*(corpus.kept().column(name).to_pylist() for name in ("segment_id", "speaker")), strict=True))
    found = {(voices[segment].removeprefix("v-"), row["status"]) for segment, row in rows.items()}
    assert found == {(voice, status) for voice, (status, _) in wanted.items()}
    asked = {voice: {server.asked[clip] for clip in clips} for voice, clips in hashes.items()}
    assert asked == {voice: {times} for voice, (_, times) in wanted.items()}
    ledger = Ledger(folder / LEDGER, folder.name)
    totals = ledger.totals()
    ledger.close()
    assert totals.cap is not None and totals.held == 0
    assert server.spent_micro <= totals.spent + len(server.requests) <= totals.cap
    assert server.trap.requests == []
    for path in (path for path in root.rglob("*") if path.is_file()):
        assert b"CANARY" not in path.read_bytes(), path


def options(**changes: object) -> PassOptions:
    base = PassOptions(cap_usd=1.0, clock=Quick().clock(), day=lambda: date(2026, 12, 1), concurrency=4)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def gemini(server: Service) -> RemoteProvider:
    return Gemini(base_url=server.url, timeout_s=2.0)


def chat(server: Service) -> RemoteProvider:
    server.nano_per_token = {"text": 250, "audio": 250, "out": 970}
    return Chat("qwen3-omni-30b-a3b", f"{server.url}/v1", timeout_s=2.0)


STOPS: dict[str, type[PassStoppedError]] = {
    "429_day": QuotaUsedError, "quota": QuotaUsedError, "401": CannotWorkError, "403": CannotWorkError, "404": CannotWorkError,
    "redirect": CannotWorkError, "other_model": OtherModelError,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "provider", "faults"), [(GeminiServer, gemini, GEMINI), (OpenAIServer, chat, CHAT)])
def test_every_fault_that_passes_ends_in_a_description(
    tmp_path: Path,
    kind: type[Service],
    provider: object,
    faults: dict[str, tuple[str, int]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    hashes = speech(tmp_path / "c", list(faults))
    with kind(KEY) as server:
        plant(server, hashes, {fault: fault for fault in faults if fault})
        stats = describe_paid(tmp_path / "c", provider(server), options())  # type: ignore[operator]
        assert stats.clips == {"ok": 2 * len(faults)}
        check_pass(tmp_path / "c", server, hashes, faults)
        sent = len(server.requests)
        again = describe_paid(tmp_path / "c", provider(server), options())  # type: ignore[operator]
        assert again.clips == stats.clips and len(server.requests) == sent and "CANARY" not in caplog.text


def test_faults_that_last_are_final_and_cost_no_more(tmp_path: Path) -> None:
    hashes = speech(tmp_path / "c", list(LASTING))
    with GeminiServer(KEY) as server:
        plant(server, hashes, {fault: fault for fault in LASTING}, times=4)
        stats = describe_paid(tmp_path / "c", gemini(server), options())
        # A wrong value of one clip spoils only that clip; its neighbor is asked about once.
        wrong = hashes["wrong_enum"]
        assert sorted(server.asked[clip] for clip in wrong) == [1, 2]
        assert stats.clips == Counter(ok=1, blocked=4, failed=7)
        server.asked[min(wrong, key=lambda clip: server.asked[clip])] += 1
        rows = rows_of(tmp_path / "c", stats.name)
        assert {str(row["status"]) for row in rows.values()} == {"ok", *(status for status, _ in LASTING.values())}
        sent = len(server.requests)
        assert describe_paid(tmp_path / "c", gemini(server), options()).clips == stats.clips
        assert len(server.requests) == sent


@pytest.mark.parametrize(
    ("kind", "provider", "faults"),
    [(GeminiServer, gemini, gemini_server.FAULTS), (OpenAIServer, chat, openai_server.FAULTS)],
)
def test_what_no_retry_cures_stops_the_pass_in_one_line_and_a_later_run_finishes(
    tmp_path: Path, kind: type[Service], provider: object, faults: tuple[str, ...]
) -> None:
    hashes = speech(tmp_path / "c", ["a", "b"])
    stops = [fault for fault in STOPS if fault in faults]
    with kind(KEY) as server:
        for number, fault in enumerate(stops, 1):
            server.fail("*", number, fault)
            with pytest.raises(STOPS[fault]) as caught:
                describe_paid(tmp_path / "c", provider(server), options(concurrency=1))  # type: ignore[operator]
            assert (
                "\n" not in str(caught.value) and "CANARY" not in repr(caught.value) and caught.value.stats is not None
            )
            assert len(server.requests) == number, "the first such reply stops it"
        stats = describe_paid(tmp_path / "c", provider(server), options())  # type: ignore[operator]
        assert stats.clips == {"ok": 4} and len(stops) >= 4
        first, *others = hashes
        check_pass(tmp_path / "c", server, hashes, {first: ("ok", 1 + len(stops)), **dict.fromkeys(others, OK)})


def test_batches_with_every_fault_of_items_and_endpoints_are_created_once(tmp_path: Path) -> None:
    hashes = speech(tmp_path / "c", list(BATCH))
    with GeminiServer(KEY) as server:
        server.polls = 1
        plant(server, hashes, {fault: fault for fault in BATCH if fault})
        for action, fault in (
            ("upload", "500"),
            ("chunk", "drop"),
            ("create", "drop"),
            ("look", "500"),
            ("download", "drop"),
        ):
            server.fail(action, 1, fault)
        server.fail("download", 3, "redirect")
        provider = GeminiBatch(base_url=server.url, timeout_s=20.0)
        polling = options(poll_s=0.01)
        with pytest.raises(CannotWorkError, match="a redirect to localhost"):
            describe_paid(tmp_path / "c", provider, polling)
        stats = describe_paid(tmp_path / "c", provider, polling)
        assert stats.clips == {"ok": 2 * len(BATCH)} and stats.jobs_running == 0
        names = [job.display_name for job in server.jobs.values()]
        assert len(names) == len(set(names)) == 2, "one job for all, and one for what failed in it"
        check_pass(tmp_path / "c", server, hashes, BATCH)


def test_a_batch_answered_by_another_model_stops(tmp_path: Path) -> None:
    hashes = speech(tmp_path / "c", ["a", "b"])
    with GeminiServer(KEY) as server:
        server.polls = 0
        server.fail("*", 1, "other_model")
        provider = GeminiBatch(base_url=server.url, timeout_s=20.0)
        with pytest.raises(OtherModelError, match=r"gemini-2\.0-other-001 answered instead of gemini-3\.8-flash"):
            describe_paid(tmp_path / "c", provider, options(poll_s=0.01))
        assert describe_paid(tmp_path / "c", provider, options(poll_s=0.01)).clips == {"ok": 4}
        assert sorted(server.asked[clip] for clips in hashes.values() for clip in clips) == [1, 1, 2, 2]
