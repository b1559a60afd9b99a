"""Keys of the speech server: calls that wait, and keys that are revoked."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from speech_service import WAIT_S, Service, until

from voxcpm.server.access.keys import Key, Keys, make_key
from voxcpm.server.errors import ApiError


def test_calls_that_wait_count_and_are_checked_again_at_their_turn() -> None:
    async def scenario() -> None:
        keys, key = Keys(), Key("anna", "", running=1, queued=20, characters=100, audio=10)
        first = await keys.admit(key, 1)
        waiting = [asyncio.create_task(keys.admit(key, 45)) for _ in range(4)]
        await asyncio.sleep(0)
        refused = [task.exception() for task in waiting if task.done()]
        assert len(refused) == 2 and all("100 characters" in str(error) for error in refused)
        # One that goes gives its characters back.
        left = [task for task in waiting if not task.done()]
        left.pop().cancel()
        await asyncio.sleep(0)
        left.append(asyncio.create_task(keys.admit(key, 45)))
        await asyncio.sleep(0)
        assert not any(task.done() for task in left)
        # The audio of the call before them uses up the day: all of them are refused, one after the other.
        first.close(30.0)
        found = await asyncio.gather(*left, return_exceptions=True)
        assert ["seconds of audio" in str(error) for error in found] == [True, True]
        use = keys._uses["anna"]
        assert use.running == 0 and not use.waiting and sum(n for _, n in use.characters) == 1

    asyncio.run(scenario())


def test_a_call_that_is_cancelled_while_a_place_is_passed_on_frees_only_what_it_had() -> None:
    async def scenario() -> None:
        keys, key = Keys(), Key("anna", "", running=2)
        first, second = await keys.admit(key, 1), await keys.admit(key, 1)
        gone = asyncio.create_task(keys.admit(key, 1))
        await asyncio.sleep(0)
        # Its place is passed on before it has noticed that it was cancelled.
        gone.cancel()
        first.close(0.0)
        await asyncio.gather(gone, return_exceptions=True)
        assert keys._uses["anna"].running == 1
        second.close(0.0)
        assert keys._uses["anna"].running == 0

    asyncio.run(scenario())


def test_a_key_is_revoked_by_its_line_and_all_by_an_empty_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    (anna, anna_line), (ben, ben_line), (_, again) = make_key("anna"), make_key("ben"), make_key("anna")
    file.write_text(f"{anna_line}\n{ben_line}\n")
    keys = Keys(file)
    known, other = keys.find(anna), keys.find(ben)
    file.write_text(f"{anna_line} running=1\n{ben_line}\n")
    now = keys.current(known)
    assert now is not None and now.running == 1
    file.write_text(f"{again}\n{ben_line}\n")
    with pytest.raises(ApiError, match="revoked"):
        keys.check(known, 1)
    file.unlink()
    assert keys.find(ben) == other
    file.write_text("# none\n")
    with pytest.raises(ApiError, match="not known"):
        keys.find(ben)
    with pytest.raises(ApiError, match="revoked"):
        asyncio.run(keys.admit(other, 1))


def test_a_request_that_waits_for_its_key_can_be_cancelled(tmp_path: Path) -> None:
    secret, line = make_key("anna", running=1)
    (tmp_path / "keys").write_text(line)
    with Service({"keys": tmp_path / "keys"}) as service, ThreadPoolExecutor(2) as pool:
        headers = {"Authorization": f"Bearer {secret}"}

        def named(name: str) -> dict[str, str]:
            return headers | {"X-Request-Id": name}

        held = pool.submit(service.speak, "hold", named("held"))
        until(lambda: len(service.state.running) == 1)
        waits = pool.submit(service.speak, "hello", named("waits"))
        until(lambda: len(service.state.waiting) == 1)
        assert service.ask("GET", "/v1/audio/speech/waits", headers=headers).json["status"] == "waiting"
        assert service.speak("hello", named("waits")).status == 409
        assert service.ask("DELETE", "/v1/audio/speech/waits", headers=headers).json["cancelled"] is True
        assert waits.result(WAIT_S).status == 499
        assert service.ask("GET", "/v1/audio/speech/waits", headers=headers).json["ending"] == "cancelled"
        service.ask("DELETE", "/v1/audio/speech/held", headers=headers)
        assert held.result(WAIT_S).status == 499
        assert service.speak("hello", headers).status == 200 and not service.state.waiting


def test_a_limit_of_0_says_what_it_means() -> None:
    with pytest.raises(ValueError, match="0: none may wait"):
        make_key("anna", queued=-1)
    with pytest.raises(ValueError, match="0: no limit"):
        make_key("anna", running=-1)
    assert Key("anna", "", running=1, queued=0).sessions == 1 and Key("anna", "", running=0).sessions is None
