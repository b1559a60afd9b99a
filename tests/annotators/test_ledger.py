"""The ledger: money is held before it is spent, and survives kills."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.paid import ledger_file
from annotators.paid.ledger import ANSWERED, OTHER_MODEL, RELEASED, UNKNOWN, Ledger, Refusal
from annotators.paid.ledger_file import LedgerError
from annotators.paid.owners import file_system, is_alive, is_network, this_process
from annotators.providers.remote import Reply, Tokens

DEAD = f"{os.getpid()}:1:{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:" + this_process().split(":")[3]
"""An owner with the id of a living process, but another start time."""


def reply(text: str = "{}", usage: Tokens | None = None) -> Reply:
    return Reply(text, "STOP", None, "m-1", usage, text)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "ledger.sqlite", "pass")
    made.set_cap(1000)
    yield made
    made.close()


def other(ledger: Ledger, owner: str | None = None) -> Ledger:
    return Ledger(ledger.path, "pass", owner=owner)


def test_a_request_goes_from_reserved_to_answered(ledger: Ledger) -> None:
    assert ledger.reserve("r", ["a", "b"], 700) == 1
    assert (ledger.totals().spent, ledger.totals().held) == (0, 700)
    ledger.sent("r", 1)
    ledger.answer("r", 1, reply('{"said": "温暖"}', Tokens(3, 4, 0, 5)), 120)
    totals = ledger.totals()
    assert (totals.spent, totals.held, totals.unknown) == (120, 0, 0)
    assert ledger.reply("r", 1) == ('{"said": "温暖"}', ["a", "b"])
    (entry,) = ledger.history(["a"])["a"]
    assert (entry.state, entry.cost, entry.keys, entry.usage) == (ANSWERED, 120, 2, Tokens(3, 4, 0, 5))
    assert ledger.history(["z"]) == {}


def test_keys_come_back_in_the_order_in_which_they_were_asked(ledger: Ledger) -> None:
    keys = [f"{n * 7919 % 101:03}" for n in range(60)]
    ledger.reserve("r", keys, 1)
    ledger.sent("r", 1)
    ledger.answer("r", 1, reply(), 1)
    assert ledger.reply("r", 1)[1] == keys


def test_nothing_is_reserved_before_a_cap_is_given(tmp_path: Path) -> None:
    made = Ledger(tmp_path / "l", "pass")
    assert made.reserve("r", ["a"], 1) is Refusal.CAP
    made.set_cap(None)
    assert made.reserve("r", ["a"], 10**15) == 1
    made.close()


def test_the_cap_counts_what_is_held_and_can_be_raised(ledger: Ledger) -> None:
    assert ledger.reserve("r", ["a"], 600) == 1
    assert ledger.reserve("s", ["b"], 401) is Refusal.CAP
    assert ledger.reserve("s", ["b"], 400) == 1
    ledger.lose("r", 1, "gone")
    assert ledger.reserve("t", ["c"], 1) is Refusal.CAP
    ledger.set_cap(1001)
    assert ledger.reserve("t", ["c"], 1) == 1


def test_two_passes_in_one_file_have_separate_caps(ledger: Ledger) -> None:
    second = Ledger(ledger.path, "another")
    assert ledger.reserve("r", ["a"], 1000) == 1
    assert second.reserve("s", ["b"], 1) is Refusal.CAP
    second.set_cap(5)
    assert second.reserve("s", ["b"], 5) == 1
    assert second.totals().held == 5
    second.close()


def test_a_key_is_not_asked_by_a_second_living_process(ledger: Ledger) -> None:
    second = other(ledger)
    assert ledger.reserve("r", ["a", "b"], 10) == 1
    assert second.reserve("s", ["b", "c"], 10) is Refusal.TAKEN
    ledger.sent("r", 1)
    assert second.recover() == 0
    assert second.reserve("s", ["b", "c"], 10) is Refusal.TAKEN
    assert second.reserve("t", ["c"], 10) == 1
    second.close()


def test_an_answered_key_is_not_asked_by_a_process_that_does_not_know_it(ledger: Ledger) -> None:
    ledger.reserve("r", ["a", "b"], 10)
    ledger.sent("r", 1)
    ledger.answer("r", 1, reply(), 5)
    assert ledger.reserve("s", ["a"], 10) is Refusal.TAKEN
    assert ledger.reserve("s", ["a"], 10, expected=1) == 1


def test_a_reply_of_another_model_does_not_count(ledger: Ledger) -> None:
    ledger.reserve("r", ["a"], 10)
    ledger.sent("r", 1)
    ledger.answer("r", 1, reply(), 5, OTHER_MODEL)
    assert ledger.reserve("r", ["a"], 10) == 2


def test_what_a_dead_process_held_is_settled_by_the_next(ledger: Ledger) -> None:
    dead = other(ledger, DEAD)
    assert dead.reserve("r", ["a"], 100) == 1 and dead.reserve("s", ["b"], 200) == 1
    dead.sent("s", 1)
    dead.close()
    assert not is_alive(DEAD) and is_alive(this_process())
    assert ledger.recover() == 2
    states = {key: ledger.history([key])[key][0].state for key in "ab"}
    assert states == {"a": RELEASED, "b": UNKNOWN}
    totals = ledger.totals()
    assert (totals.spent, totals.held, totals.unknown) == (200, 0, 200)
    assert ledger.recover() == 0 and ledger.reserve("r", ["a"], 100) == 2


def test_a_process_of_another_boot_is_dead_and_one_of_another_container_is_not() -> None:
    pid, start, boot, namespace = this_process().split(":")
    assert not is_alive(f"{pid}:{start}:other-boot:{namespace}")
    assert is_alive(f"999999999:{start}:{boot}:{int(namespace) + 1}")
    assert not is_alive("") and not is_alive("nonsense") and not is_alive(f"999999999:{start}:{boot}:{namespace}")


def test_an_unknown_request_that_is_answered_late_costs_its_price(ledger: Ledger) -> None:
    ledger.reserve("r", ["a"], 300)
    ledger.sent("r", 1)
    ledger.lose("r", 1, "timeout")
    assert ledger.totals().unknown == 300
    ledger.answer("r", 1, reply(), 40)
    totals = ledger.totals()
    assert (totals.spent, totals.unknown, totals.held) == (40, 0, 0)


def test_a_reply_without_usage_costs_its_hold(ledger: Ledger) -> None:
    ledger.reserve("r", ["a"], 300)
    ledger.sent("r", 1)
    ledger.answer("r", 1, reply(), None)
    assert ledger.totals().spent == 300


def test_a_request_is_sent_only_once(ledger: Ledger) -> None:
    ledger.reserve("r", ["a"], 1)
    ledger.sent("r", 1)
    with pytest.raises(LedgerError, match="is not reserved"):
        ledger.sent("r", 1)
    with pytest.raises(LedgerError, match="not in the ledger"):
        ledger.lose("nothing", 1, "x")


steps = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(["reserve", "sent", "answer", "release", "lose"]), st.integers(0, 60)),
    max_size=40,
)


@settings(max_examples=25, deadline=None)
@given(steps)
def test_whatever_happens_the_sums_are_those_of_the_requests_and_below_the_cap(
    actions: list[tuple[int, str, int]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "l", "pass")
        ledger.set_cap(100)
        attempts: dict[int, int] = {}
        for number, action, amount in actions:
            name, attempt = f"r{number}", attempts.get(number)
            if action == "reserve":
                found = ledger.reserve(name, [name], amount, expected=99)
                attempts |= {number: found} if isinstance(found, int) else {}
            elif attempt is not None:
                hold = ledger.rows("select hold from requests where id = ? and attempt = ?", (name, attempt))[0][0]
                try:
                    if action == "sent":
                        ledger.sent(name, attempt)
                    elif action == "answer":
                        ledger.answer(name, attempt, reply(), min(amount, hold))
                    else:
                        (ledger.release if action == "release" else ledger.lose)(name, attempt, "x")
                except LedgerError:
                    assert action == "sent"
            totals = ledger.totals()
            sums = ledger.rows(
                "select coalesce(sum(cost), 0), coalesce(sum((state in ('reserved', 'sent')) * hold), 0) from requests"
            )[0]
            assert (totals.spent, totals.held) == sums and 0 <= totals.spent + totals.held <= 100
        ledger.close()


SPENDER = """
import sys
from annotators.paid.ledger import Ledger, Refusal
from annotators.providers.remote import Reply, Tokens
path, name = sys.argv[1:]
ledger = Ledger(path, "pass")
n = 0
while True:
    n += 1
    found = ledger.reserve(f"{name}-{n}", [f"{name}-{n}"], 700)
    if found is Refusal.CAP:
        break
    ledger.sent(f"{name}-{n}", found)
    ledger.answer(f"{name}-{n}", found, Reply("", "", None, None, None, ""), 350 if n % 2 else 700)
"""


def test_no_number_of_processes_passes_the_cap(ledger: Ledger) -> None:
    ledger.set_cap(100_000)
    code = [sys.executable, "-c", SPENDER, str(ledger.path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    spenders = [subprocess.Popen([*code, str(n)], env=environment) for n in range(4)]
    assert [spender.wait() for spender in spenders] == [0] * 4
    totals = ledger.totals()
    assert totals.held == 0 and 100_000 - 700 < totals.spent <= 100_000
    assert totals.spent == ledger.rows("select sum(cost) from requests")[0][0]


def test_every_commit_is_forced_to_the_disk(ledger: Ledger) -> None:
    assert ledger.rows("pragma journal_mode") == [("wal",)] and ledger.rows("pragma synchronous") == [(2,)]


def test_a_network_file_system_is_refused_unless_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_file, "file_system", lambda path: "nfs4")
    with pytest.raises(LedgerError, match=r"network file system \(nfs4\).*local disk"):
        Ledger(tmp_path / "l", "pass")
    Ledger(tmp_path / "l", "pass", force=True).close()


def test_the_file_system_of_a_path_is_that_of_its_innermost_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        "1 0 8:1 / / rw - ext4 /dev/sda rw",
        f"2 1 0:1 / {tmp_path} rw shared:1 - fuse.sshfs host:/ rw",
        f"3 1 0:2 / {tmp_path}/in rw - tmpfs none rw",
    ]
    real = Path.read_text
    table = lambda path, *a, **k: "\n".join(lines) if "mountinfo" in str(path) else real(path, *a, **k)  # noqa: E731
    monkeypatch.setattr(Path, "read_text", table)
    assert file_system(tmp_path) == "fuse.sshfs" and is_network("fuse.sshfs")
    assert file_system(tmp_path / "in" / "x") == "tmpfs" and not is_network("tmpfs")
    assert file_system(tmp_path.with_name(tmp_path.name + "-else")) == "ext4"


def test_files_that_are_no_ledgers_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "l").write_bytes(b"not a database, not at all" * 100)
    with pytest.raises(LedgerError, match="is damaged"):
        Ledger(tmp_path / "l", "pass")
    newer = sqlite3.connect(tmp_path / "n")
    newer.execute("pragma user_version=99")
    newer.close()
    with pytest.raises(LedgerError, match="update voxmill"):
        Ledger(tmp_path / "n", "pass")


def test_keys_of_clips_are_known_again(ledger: Ledger) -> None:
    ledger.add_clips("u", 1, "first", {"s": "k1", "t": "k2"})
    ledger.add_clips("u", 1, "second", {"s": "k3"})
    assert ledger.clips("u", 1, "first") == {"s": "k1", "t": "k2"} and ledger.clips("u", 2, "first") == {}
    assert ledger.clips_of_any("u", 1) == {"s": ["k3", "k1"], "t": ["k2"]}
