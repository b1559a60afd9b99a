"""Files and batches of the fake Gemini server. A job runs until `finish_jobs`, or until it was looked at `polls` times."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fakes.annotator_service import Out, Seen, Service, out


@dataclass
class Job:
    """One batch."""

    name: str
    display_name: str
    model: str
    file: str
    state: str = "RUNNING"
    looked: int = 0
    results: str | None = None
    error: str | None = None


@dataclass
class Stored:
    """One file, perhaps still being uploaded."""

    name: str
    display_name: str
    size: int
    data: bytearray = field(default_factory=bytearray)
    active: bool = False


class Files(Service):
    """The part of the server that has files and jobs. Actions for faults: `upload`, `chunk`, `create`, `look`, `download`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.files: dict[str, Stored] = {}
        self.jobs: dict[str, Job] = {}
        self.polls: int | None = None
        """Number of looks after which a job is done; None: only by `finish_jobs`."""
        self.page_size = 2
        self.job_error: str | None = None
        """Error with which jobs end, e.g. a message of the service."""
        self.lost_lines = 0
        """Results that are left out of every file."""

    @abstractmethod
    def generate(self, model: str, body: Mapping[str, Any], share: int = 1) -> Out: ...

    def finish_jobs(self) -> None:
        """Let all running jobs end."""
        for job in self.jobs.values():
            if job.state == "RUNNING":
                self._run(job)

    def handle_files(self, seen: Seen, name: str) -> Out:
        """Answer a request about files or jobs. name: the path without its version."""
        if seen.method == "GET" and name == "batches":
            return self._page(seen)
        if seen.method == "GET" and name in self.jobs:
            spoiled = self._spoiled("look")
            return spoiled or out(200, self._job(self.jobs[name]))
        if seen.method == "GET" and name.endswith(":download"):
            file = self.files.get(name.removesuffix(":download"))
            spoiled = self._spoiled("download")
            return spoiled or (_missing(name) if file is None else Out(200, bytes(file.data)))
        if name in self.files and seen.method in ("GET", "DELETE"):
            file = self.files[name] if seen.method == "GET" else self.files.pop(name)
            return out(200, _file(file))
        return _missing(name)

    def start_upload(self, seen: Seen) -> Out:
        """Start a resumable upload."""
        if spoiled := self._spoiled("upload"):
            return spoiled
        wanted = json.loads(seen.body)["file"]
        assert (
            seen.headers["x-goog-upload-protocol"] == "resumable" and seen.headers["x-goog-upload-command"] == "start"
        )
        size = int(seen.headers["x-goog-upload-header-content-length"])
        file = Stored(f"files/f{len(self.files) + 1}", wanted.get("displayName", ""), size)
        self.files[file.name] = file
        # The place is on another host, as the real one may be: a client that goes there sends data to a stranger.
        return Out(
            200, b"{}", {"X-Goog-Upload-URL": f"{self.trap.url}/place/{file.name.rpartition('/')[2]}?upload_id=1"}
        )

    def take_chunk(self, seen: Seen, name: str) -> Out:
        """Take a part of an upload. The key is not expected here."""
        assert "x-goog-api-key" not in seen.headers, "the key was sent with a chunk"
        if spoiled := self._spoiled("chunk"):
            return spoiled
        file = self.files[f"files/{name}"]
        assert int(seen.headers["x-goog-upload-offset"]) == len(file.data), "chunks out of order"
        file.data += seen.body
        if "finalize" not in seen.headers["x-goog-upload-command"]:
            return Out(200, b"", {"X-Goog-Upload-Status": "active"})
        assert len(file.data) == file.size, "not the announced size"
        file.active = True
        return Out(200, json.dumps({"file": _file(file)}).encode(), {"X-Goog-Upload-Status": "final"})

    def create_job(self, model: str, body: Mapping[str, Any]) -> Out:
        """Create a job. Like the real one, this is not idempotent."""
        fault = self.fault_for(["create"])
        if fault in ("429", "500"):
            return out(int(fault), {"error": {"code": int(fault), "message": "planned", "status": "X"}})
        batch = body["batch"]
        file = self.files.get(batch["inputConfig"]["fileName"])
        if file is None or not file.active:
            return _missing(batch["inputConfig"]["fileName"])
        job = Job(f"batches/b{len(self.jobs) + 1}", batch["displayName"], model, file.name)
        self.jobs[job.name] = job
        sent = out(200, self._job(job, look=False))
        sent.fate = "drop" if fault == "drop" else "whole"
        return sent

    def _run(self, job: Job) -> None:
        if self.job_error is not None:
            job.state, job.error = "FAILED", self.job_error
            return
        lines = []
        for line in bytes(self.files[job.file].data).decode().splitlines():
            asked = json.loads(line)
            reply = self.generate(job.model, asked["request"], share=2)
            said = json.loads(reply.body)
            kind = {"response": said} if reply.status == 200 else {"error": said["error"]}
            lines.append(json.dumps({"key": asked["key"], **kind}, ensure_ascii=False))
        # The order is not promised.
        lines = list(reversed(lines))[self.lost_lines :]
        file = Stored(f"files/f{len(self.files) + 1}", "results", 0, bytearray("\n".join(lines).encode()), True)
        self.files[file.name] = file
        job.results, job.state = file.name, "SUCCEEDED"

    def _job(self, job: Job, look: bool = True) -> dict[str, Any]:
        job.looked += look
        if look and job.state == "RUNNING" and self.polls is not None and job.looked > self.polls:
            self._run(job)
        metadata: dict[str, Any] = {
            "state": f"BATCH_STATE_{job.state}",
            "displayName": job.display_name,
            "model": job.model,
        }
        found: dict[str, Any] = {"name": job.name, "metadata": metadata, "done": job.state != "RUNNING"}
        if job.results:
            metadata["output"] = {"responsesFile": job.results}
        if job.error:
            found["error"] = {"code": 13, "message": job.error, "details": [{"@type": "x", "any": {"thing": 1}}]}
        return found

    def _page(self, seen: Seen) -> Out:
        token = seen.path.partition("pageToken=")[2].partition("&")[0]
        start = int(token or 0)
        jobs = list(self.jobs.values())
        page: dict[str, Any] = {
            "operations": [self._job(job, look=False) for job in jobs[start : start + self.page_size]]
        }
        if start + self.page_size < len(jobs):
            page["nextPageToken"] = str(start + self.page_size)
        return out(200, page)

    def _spoiled(self, action: str) -> Out | None:
        fault = self.fault_for([action])
        if fault == "redirect":
            return Out(302, b"", {"Location": f"{self.trap.url}/stolen"})
        if fault == "drop":
            return Out(fate="drop")
        return out(int(fault), {"error": {"code": int(fault), "message": "planned", "status": "X"}}) if fault else None


def _file(file: Stored) -> dict[str, Any]:
    state = "ACTIVE" if file.active else "PROCESSING"
    return {"name": file.name, "displayName": file.display_name, "sizeBytes": str(len(file.data)), "state": state}


def _missing(name: str) -> Out:
    return out(404, {"error": {"code": 404, "message": f"{name} is not there", "status": "NOT_FOUND"}})
