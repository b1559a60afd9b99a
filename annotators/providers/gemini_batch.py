"""Gemini's batches: files of requests at half the price, answered within a day. Four endpoints over our own HTTP client.

The library's own batch calls raise for a single failed item and hide the error of a job, so they are not used.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any
from urllib.parse import urlsplit

from annotators.providers.gemini import Gemini, reply_of
from annotators.providers.http import MOST_BYTES, HttpReply, ask, check, host_of, json_object, safely
from annotators.providers.keys import redacted
from annotators.providers.remote import BatchProvider, FatalError, JobFailedError, Reply, Request, TransientError
from annotators.questions.wire import seal_line, unseal

CHUNK = 8 << 20
"""Bytes of one upload request."""
MOST_RESULT_BYTES = 2 << 30
"""The service's limit of a file."""
MOST_DOWNLOAD_S = 4 * 3600.0
MOST_PAGES = 200
_FILE, _JOB = re.compile(r"files/[A-Za-z0-9_-]{1,64}"), re.compile(r"batches/[A-Za-z0-9_-]{1,128}")
_DONE = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")


class GeminiBatch(Gemini, BatchProvider):
    """Describe clips by a Gemini model, in batches. Answers are the same as those of `gemini`."""

    name = "gemini-batch"

    async def find_job(self, display_name: str) -> str | None:
        """Return the name of the job with this display name, or None. Raises RemoteError."""
        page = ""
        for _ in range(MOST_PAGES):
            query = f"?pageSize=100&pageToken={page}" if page else "?pageSize=100"
            found = await self._json("GET", f"/v1/batches{query}")
            for job in _mappings(found.get("operations")):
                if _metadata(job).get("displayName") == display_name:
                    return _name(job.get("name"), _JOB)
            page = str(found.get("nextPageToken") or "")
            if not page:
                return None
            if not re.fullmatch(r"[\w=.-]+", page):
                raise FatalError(f"{self.host} named a page of jobs that fits no URL: nothing was created")
        raise FatalError(f"{self.host} lists more than {MOST_PAGES} pages of jobs: delete old ones")

    async def create_job(self, display_name: str, requests: Sequence[Request]) -> str:
        """Upload the requests as one file and create the job; return its name. No step is repeated. Raises RemoteError."""
        with tempfile.TemporaryFile() as file:
            size = await asyncio.to_thread(self._write, file, requests)
            uploaded = await self._uploaded(display_name, file, size)
        batch = {"batch": {"displayName": display_name, "inputConfig": {"fileName": uploaded}}}
        model = self.model.removeprefix("models/")
        job = await self._json("POST", f"/v1/models/{model}:batchGenerateContent", batch)
        name = job.get("name")
        if not isinstance(name, str) or not _JOB.fullmatch(name):
            # It exists all the same.
            raise TransientError(f"{self.host} gave the job a name of another form", sent=True, status=200)
        return name

    async def _uploaded(self, display_name: str, file: IO[bytes], size: int) -> str:
        """Upload a file of requests. A file alone is not billed, so every fault that may pass is one before sending."""
        failed: TransientError
        try:
            return await self._upload(display_name, file, size)
        except TransientError as error:
            failed = TransientError(str(error), sent=False, retry_after=error.retry_after, status=error.status)
        raise failed

    async def collect(self, job: str) -> Mapping[str, Reply | str] | None:
        """Return the reply or the error of each request by id, or None while the job runs. Raises RemoteError.

        An expired job has no file of results. A job that failed or is gone raises JobFailedError with the service's reason.
        """
        try:
            found = await self._json("GET", f"/v1/{_name(job, _JOB)}")
        except FatalError as refused:
            if refused.status not in (404, 410):
                raise
            # Deleted, or older than jobs are kept. If the list is refused, too, it is the address or the key.
            await self._json("GET", "/v1/batches?pageSize=1")
            raise JobFailedError(f"{self.host} does not know the job {job} any more") from None
        state = str(_metadata(found).get("state") or "").removeprefix("BATCH_STATE_").removeprefix("JOB_STATE_")
        if state not in _DONE and not found.get("done"):
            return None
        results = _results_file(found)
        if results is None:
            error = found.get("error")
            said = str(error.get("message") or "") if isinstance(error, Mapping) else ""
            text = f"the job {job} ended as {state or 'done'}: {said or 'no results and no reason were given'}"
            raise JobFailedError(redacted(text, self.key()))
        with tempfile.TemporaryFile() as file:
            await self._download(results, file)
            return await asyncio.to_thread(self._read, file)

    @property
    def host(self) -> str:
        """The service's host, for messages."""
        return host_of(self.base_url)

    def _write(self, file: IO[bytes], requests: Sequence[Request]) -> int:
        for request in requests:
            # The lengths come back with the key, so that results are checked without the audio.
            key = f"{request.id} {seal_line(tuple(one.seconds for one in request.asks))}"
            line = json.dumps({"key": key, "request": self.body(request)}, ensure_ascii=False)
            file.write(line.encode() + b"\n")
        size = file.tell()
        file.seek(0)
        return size

    def _read(self, file: IO[bytes]) -> dict[str, Reply | str]:
        file.seek(0)
        return dict(self._results(file))

    def _results(self, lines: IO[bytes]) -> Iterator[tuple[str, Reply | str]]:
        for line in lines:
            found = json_object(line.decode("utf-8", "replace")) or {}
            key, _, sealed = str(found.get("key") or "").partition(" ")
            if not key:
                continue
            seconds, _ = unseal(f"{sealed}\n")
            response = found.get("response")
            if isinstance(response, Mapping):
                # A response without an answer may have been billed: the request counts as one without a reply.
                with suppress(TransientError):
                    yield key, reply_of(json.dumps(response, ensure_ascii=False), seconds or (), self.host, self.key())
            else:
                failed = found.get("error") or found.get("status")
                said = failed.get("message") if isinstance(failed, Mapping) else failed
                yield key, redacted(f"the batch failed for this request: {said or 'no reason was given'}", self.key())

    async def _upload(self, display_name: str, file: IO[bytes], size: int) -> str:
        """Upload a file of requests; return its name."""
        headers = {
            "X-Goog-Upload-Protocol": "resumable",
            "X-Goog-Upload-Command": "start",
            "X-Goog-Upload-Header-Content-Length": str(size),
            "X-Goog-Upload-Header-Content-Type": "application/jsonl",
        }
        wanted = {"file": {"displayName": display_name, "mimeType": "application/jsonl", "sizeBytes": str(size)}}
        started = await self._ask("POST", "/upload/v1/files", json.dumps(wanted).encode(), headers)
        parts = urlsplit(started.headers.get("x-goog-upload-url", ""))
        if not parts.path.startswith("/"):
            raise TransientError(f"{self.host} named no place for the upload", sent=False, status=200)
        # Only the path is taken: requests go to no other host than the one that was named by the user.
        place = f"{parts.path}?{parts.query}" if parts.query else parts.path
        offset = 0
        while True:
            chunk = await asyncio.to_thread(file.read, CHUNK)
            last = offset + len(chunk) >= size
            command = {
                "X-Goog-Upload-Command": "upload, finalize" if last else "upload",
                "X-Goog-Upload-Offset": str(offset),
            }
            done = await self._ask("POST", place, chunk, command, with_key=False)
            offset += len(chunk)
            state = done.headers.get("x-goog-upload-status")
            if last:
                file_said = (done.json() or {}).get("file")
                if state != "final" or not isinstance(file_said, Mapping):
                    raise TransientError(f"{self.host} did not confirm the upload", sent=False, status=200)
                return _name(file_said.get("name"), _FILE)
            if state != "active":
                raise TransientError(f"{self.host} ended the upload early", sent=False, status=200)

    async def _download(self, name: str, file: IO[bytes]) -> None:
        key = self.key()
        url = f"{self.base_url}/v1/{name}:download?alt=media"
        request = self.http().build_request(
            "GET", url, headers={"x-goog-api-key": key.reveal()}, extensions={MOST_BYTES: MOST_RESULT_BYTES}
        )

        async def fetch() -> HttpReply | None:
            response = await self.http().send(request, stream=True)
            try:
                if response.status_code != 200:
                    body = (await response.aread()).decode("utf-8", "replace")
                    return HttpReply(response.status_code, {k.lower(): v for k, v in response.headers.items()}, body)
                await _copy(response.aiter_bytes(), file)
            finally:
                await response.aclose()
            return None

        refused = await safely(fetch(), self.host, key, most_s=MOST_DOWNLOAD_S)
        if refused is not None and refused.status in (404, 410):
            raise JobFailedError(f"{self.host} has no results any more: they are kept for 48 hours")
        if refused is not None:
            check(refused, self.host, key)

    async def _json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        reply = await self._ask(method, path, None if body is None else json.dumps(body).encode())
        found = reply.json()
        if found is None:
            raise TransientError(f"{self.host} sent a reply that is not JSON", sent=True, status=200)
        return found

    async def _ask(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        with_key: bool = True,
    ) -> HttpReply:
        """Send one request, once. Raises RemoteError for any status but 200."""
        key = self.key()
        sent = {"content-type": "application/json", **(headers or {})}
        if with_key:
            sent["x-goog-api-key"] = key.reveal()
        client = self.http()
        reply = await ask(
            client,
            client.build_request(method, self.base_url + path, content=content, headers=sent),
            key,
            most_s=self.most_s,
        )
        check(reply, self.host, key)
        return reply


async def _copy(parts: AsyncIterator[bytes], file: IO[bytes]) -> None:
    size = 0
    async for part in parts:
        size += len(part)
        if size > MOST_RESULT_BYTES:
            raise FatalError("the file of results is larger than the service allows: it was not read")
        file.write(part)


def _results_file(job: Mapping[str, Any]) -> str | None:
    """Return the name of a job's file of results, wherever the service puts it."""
    response = job.get("response")
    places = (_metadata(job).get("output"), response, response.get("output") if isinstance(response, Mapping) else None)
    for place in places:
        if isinstance(place, Mapping) and place.get("responsesFile"):
            return _name(place["responsesFile"], _FILE)
    return None


def _metadata(job: Mapping[str, Any]) -> Mapping[str, Any]:
    found = job.get("metadata")
    return found if isinstance(found, Mapping) else {}


def _mappings(found: object) -> list[Mapping[str, Any]]:
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _name(said: object, form: re.Pattern[str]) -> str:
    """Return a name of the service that becomes part of a path. Raises FatalError for one of another form."""
    if not isinstance(said, str) or not form.fullmatch(said):
        raise FatalError(f"the service named {redacted(str(said))[:60]!r} where {form.pattern} is expected")
    return said
