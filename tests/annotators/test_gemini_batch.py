"""Batches of Gemini against a local server: files, jobs found before they are created, results in any order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from asked_clips import KEY, SPOKEN, ask, clean_environment, one, three
from fakes.gemini_server import GeminiServer

from annotators.providers import gemini_batch
from annotators.providers.gemini import Gemini
from annotators.providers.gemini_batch import GeminiBatch
from annotators.providers.questions import new_request
from annotators.providers.remote import FatalError, JobFailedError, RemoteError, Reply, Request, TransientError
from annotators.schema import VoiceDescription


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    clean_environment(monkeypatch)


@pytest.fixture
def server() -> Iterator[GeminiServer]:
    with GeminiServer(KEY) as running:
        yield running


REQUESTS = [three(), new_request([ask("d", 3.0, 180.0, "s2")]), new_request([ask("e", 5.0, 90.0, "s3")])]


class Jobs:
    """The calls of a provider, each in an event loop of its own."""

    def __init__(self, server: GeminiServer) -> None:
        self.provider = GeminiBatch(base_url=server.url, timeout_s=20.0)

    def create(self, name: str = "voxmill-1", requests: list[Request] = REQUESTS) -> str | RemoteError:
        return asyncio.run(self._closed(self._create(name, requests)))

    async def _create(self, name: str, requests: list[Request]) -> str | RemoteError:
        try:
            return await self.provider.create_job(name, requests)
        except RemoteError as error:
            return error

    def find(self, name: str = "voxmill-1") -> str | None:
        async def find() -> str | None:
            found = await self.provider.find_job(name)
            await self.provider.close()
            return found

        return asyncio.run(find())

    def collect(self, job: str) -> dict[str, Reply | str] | RemoteError | None:
        async def collect() -> dict[str, Reply | str] | RemoteError | None:
            try:
                found = await self.provider.collect(job)
                return None if found is None else dict(found)
            except RemoteError as error:
                return error
            finally:
                await self.provider.close()

        return asyncio.run(collect())

    async def _closed(self, call: object) -> str | RemoteError:
        try:
            found: str | RemoteError = await call  # type: ignore[misc]
            return found
        finally:
            await self.provider.close()


def test_a_job_is_created_found_and_collected(server: GeminiServer) -> None:
    jobs = Jobs(server)
    job = jobs.create()
    assert isinstance(job, str) and jobs.find() == job and jobs.find("voxmill-2") is None
    assert jobs.collect(job) is None, "it runs"
    server.finish_jobs()
    found = jobs.collect(job)
    assert isinstance(found, dict) and found.keys() == {request.id for request in REQUESTS}
    for request in REQUESTS:
        reply = found[request.id]
        assert isinstance(reply, Reply) and reply.usage is not None and reply.model_version == "gemini-3.8-flash-001"
        said = jobs.provider.parse(reply.raw, request.keys)
        assert all(isinstance(one, VoiceDescription) for one in said.values())
        assert Gemini().parse(reply.raw, request.keys) == said
    assert all(count == 1 for count in server.asked.values()) and len(server.asked) == 5


def test_batches_and_online_requests_are_the_same_questions(server: GeminiServer) -> None:
    batch, online = GeminiBatch(base_url=server.url), Gemini(base_url=server.url)
    assert batch.identity == online.identity and batch.name != online.name
    config = online._config(3)
    body = batch.body(three())
    assert config.response_json_schema == body["generationConfig"]["responseJsonSchema"]
    assert config.max_output_tokens == body["generationConfig"]["maxOutputTokens"]
    texts = [part.text for part in online._contents(three())[0].parts or [] if part.text]
    assert texts == [part["text"] for part in body["contents"][0]["parts"] if "text" in part]
    assert SPOKEN not in json.dumps(body)


def test_a_job_is_found_on_any_page(server: GeminiServer) -> None:
    jobs = Jobs(server)
    names = [jobs.create(f"voxmill-{n}", [one()]) for n in range(5)]
    assert [jobs.find(f"voxmill-{n}") for n in range(5)] == names


def test_a_large_file_is_uploaded_in_order(server: GeminiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemini_batch, "CHUNK", 10_000)
    assert isinstance(Jobs(server).create(), str)
    chunks = [seen for seen in server.requests if seen.path.startswith("/place/")]
    assert len(chunks) > 3 and all("x-goog-api-key" not in seen.headers for seen in chunks)
    (stored,) = server.files.values()
    lines = bytes(stored.data).decode().splitlines()
    assert [json.loads(line)["key"].split()[0] for line in lines] == [request.id for request in REQUESTS]
    assert server.trap.requests == [], "the place of an upload on another host is not followed"


@pytest.mark.parametrize(
    ("action", "fault", "kind", "sent"),
    [
        ("upload", "500", TransientError, False),
        ("upload", "redirect", FatalError, None),
        ("chunk", "drop", TransientError, False),
        ("chunk", "redirect", FatalError, None),
        ("create", "429", TransientError, False),
        ("create", "drop", TransientError, True),
    ],
)
def test_no_step_of_a_creation_is_repeated(
    server: GeminiServer, action: str, fault: str, kind: type[Exception], sent: bool | None
) -> None:
    server.fail(action, 1, fault)
    jobs = Jobs(server)
    error = jobs.create()
    assert type(error) is kind, repr(error)
    if isinstance(error, TransientError):
        assert error.sent is sent
    assert len([s for s in server.requests if "batchGenerateContent" in s.path]) == (action == "create")
    assert (jobs.find() is not None) is (action == "create" and fault == "drop"), (
        "a job whose creation was not heard of is found"
    )
    assert server.trap.requests == []


def test_errors_of_items_are_texts_and_lost_items_are_absent(server: GeminiServer) -> None:
    server.fail("*", 2, "500")
    server.fail("*", 3, "blocked")
    server.lost_lines = 1
    jobs = Jobs(server)
    job = jobs.create()
    assert isinstance(job, str)
    server.finish_jobs()
    found = jobs.collect(job)
    # The file is written backwards, so the last request is the one that is lost.
    assert isinstance(found, dict) and REQUESTS[2].id not in found
    assert isinstance(found[REQUESTS[0].id], Reply)
    assert found[REQUESTS[1].id] == "the batch failed for this request: planned 500"


def test_a_blocked_item_is_a_reply(server: GeminiServer) -> None:
    server.fail("*", 1, "blocked")
    jobs = Jobs(server)
    job = jobs.create(requests=[one()])
    assert isinstance(job, str)
    server.finish_jobs()
    found = jobs.collect(job)
    assert isinstance(found, dict)
    reply = found[one().id]
    assert isinstance(reply, Reply) and jobs.provider.parse(reply.raw, one().keys) == {
        one().keys[0]: "blocked:PROHIBITED_CONTENT"
    }


def test_a_job_that_is_gone_has_failed_and_a_wrong_address_is_no_lost_job(server: GeminiServer) -> None:
    jobs = Jobs(server)
    job = jobs.create()
    assert isinstance(job, str)
    server.jobs.clear()
    error = jobs.collect(job)
    assert isinstance(error, JobFailedError) and "does not know the job" in str(error)
    server.key = "another"
    error = jobs.collect(job)
    assert isinstance(error, FatalError) and not isinstance(error, JobFailedError)


def test_a_failed_job_says_why_without_the_key(server: GeminiServer) -> None:
    server.job_error = f"the enqueued-token limit was reached for {KEY}"
    jobs = Jobs(server)
    job = jobs.create()
    assert isinstance(job, str)
    server.finish_jobs()
    error = jobs.collect(job)
    assert isinstance(error, JobFailedError) and "enqueued-token limit" in str(error) and KEY not in str(error)


@pytest.mark.parametrize(
    ("action", "fault"), [("look", "500"), ("download", "500"), ("download", "redirect"), ("look", "drop")]
)
def test_results_are_collected_later_after_a_fault(server: GeminiServer, action: str, fault: str) -> None:
    jobs = Jobs(server)
    job = jobs.create(requests=[one()])
    assert isinstance(job, str)
    server.finish_jobs()
    server.fail(action, 1, fault)
    asked = len(server.requests)
    assert isinstance(jobs.collect(job), FatalError if fault == "redirect" else TransientError)
    assert len(server.requests) == asked + (2 if action == "download" else 1) and server.trap.requests == []
    assert isinstance(jobs.collect(job), dict)


def test_names_of_the_service_become_no_path(server: GeminiServer) -> None:
    for name in ("batches/../files/f1", "files/f1", "", "batches/a?x=1"):
        assert isinstance(Jobs(server).collect(name), FatalError)
    assert server.requests == []
