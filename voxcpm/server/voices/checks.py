"""Checked consents: the records that `voxmill consent check` writes, and the program that makes them.

The check recognizes speech and compares voices, for which this package and the HTTP process have no models. It runs as a
separate process, one at a time, with low priority and a time limit. Its records lie beside the consents.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxcpm.server.errors import ApiError, busy, invalid
from voxcpm.server.references.decode import decode_clip
from voxcpm.server.voices.consent import Consent, ConsentFolder
from voxcpm.server.voices.files import only_writer
from voxcpm.server.voices.sentences import remove_stale

log = logging.getLogger("voxcpm.server")

CHECK_S = 300.0
"""Longest check, in seconds: it loads its models each time, on a machine that speaks meanwhile."""
ASK_S = 60.0
MOST_WAITING = 8
"""Checks and sentences that are made or wait at most; one is made at a time."""
MOST_OF_ONE = 2
"""Checks of one consent that are made or wait at most, so that one client with many clips does not keep all others out."""
MOST_OPEN = 1_000
"""Sentences that may wait for their recording."""
_CHECK_RATE = 16_000
_NICE = 5
_KEPT = 10_000
_ID = re.compile(r"[0-9a-f]{16}")
_DRAFTS = ".check-"
ACCEPTED = ("verified", "plausible")
HOW = (
    "get a sentence at POST /v1/audio/voice_consents/sentence, let the speaker read it, and store the recording with its "
    "challenge at POST /v1/audio/voice_consents"
)
"""What a client has to do for a consent that is checked."""


@dataclass(frozen=True)
class Checked:
    """The outcome of a check. expires: the last day of the consent, ISO 8601."""

    id: str
    verdict: str
    reasons: tuple[str, ...]
    expires: str | None
    statement_sha256: str
    reference_sha256: tuple[str, ...]

    @classmethod
    def of(cls, record: Any) -> Checked | None:
        """Return the outcome in a record; None if it is not one."""
        try:
            return cls(
                record["id"],
                record["verdict"],
                tuple(record["reasons"]),
                record["expires"],
                record["statement_sha256"],
                tuple(record["reference_sha256"]),
            )
        except (KeyError, TypeError):
            return None

    def covers(self, clip_sha256: str) -> bool:
        """Return True if it is an accepted consent for the voice of this clip, today."""
        today = time.strftime("%Y-%m-%d", time.gmtime())
        current = self.expires is None or today <= self.expires
        return self.verdict in ACCEPTED and current and clip_sha256 in self.reference_sha256


def read_checked(folder: Path, record_id: str) -> Checked | None:
    """Return the outcome of the check with this id in a folder of consents; None if there is none."""
    if _ID.fullmatch(record_id) is None:
        return None
    try:
        found = Checked.of(json.loads((folder / f"{record_id}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return None
    return found if found is not None and found.id == record_id else None


def record_id(statement_sha256: str, clip_sha256: str, challenge: str) -> str:
    """Return the id that `voxmill consent check` gives to the record of a statement and one clip (pipeline.voice.consent)."""
    return hashlib.sha256(f"{statement_sha256}\n{clip_sha256}\n{challenge}".encode()).hexdigest()[:16]


class ConsentChecks:
    """Asks for sentences and checks statements against clips, by the program `voxmill consent`."""

    def __init__(self, program: Sequence[str], folder: Path) -> None:
        self.folder = folder
        self._program = tuple(program)
        self._turn = asyncio.Lock()
        self._waiting: Counter[str | None] = Counter()  #: by consent; None: sentences
        self._known: dict[tuple[str, str], Checked] = {}
        _remove_drafts(folder)

    async def sentence(self, speaker: str, recipient: str, language: str, purposes: Iterable[str]) -> dict[str, Any]:
        """Return a new challenge with its sentence. Raises ApiError."""
        said = [f"--speaker={speaker}", f"--to={recipient}", f"--language={language}"]
        async with self._next():
            if await asyncio.to_thread(remove_stale, self.folder) >= MOST_OPEN:
                raise busy(f"{MOST_OPEN} sentences wait for their recording already: ask when some have ended", 3600.0)
            found = await self._run(["ask", *said, *(f"--purpose={one}" for one in purposes)], ASK_S)
        if found is None:
            raise invalid(
                "no sentence can be made: send speaker, recipient and purpose as texts with letters, of at most 120 characters; "
                "if they are, the server's log says why"
            )
        return found

    def has_challenge(self, challenge: str) -> bool:
        """Return True if a sentence was given under this id."""
        return _ID.fullmatch(challenge) is not None and (self.folder / "challenges" / f"{challenge}.json").is_file()

    async def permit(self, consent_id: str | None, clip: bytes, param: str) -> None:
        """Raise ApiError and AudioError as `require` does."""
        await self.require(consent_id or "", clip, param)

    async def require(self, consent_id: str, clip: bytes, param: str) -> Checked:
        """Return the accepted check of a consent for a clip; it is made if it was not yet.

        Raises ApiError (403) if there is none, and AudioError if the clip cannot be decoded.
        """
        consent = await asyncio.to_thread(ConsentFolder(self.folder).find, consent_id)
        if consent is None or not consent.challenge:
            missing = "needs a checked consent" if consent is None else "needs a consent with a challenge"
            raise ApiError(
                403,
                f"{param}: a voice on this server {missing}: {HOW}",
                "permission_error",
                "consent",
                "consent_required",
            )
        digest = hashlib.sha256(clip).hexdigest()
        found = self._known.get((consent.id, digest)) or await asyncio.to_thread(self._stored, consent, digest)
        if found is None:
            found = await self._check(consent, clip, digest)
        if len(self._known) >= _KEPT:
            self._known.clear()
        self._known[consent.id, digest] = found
        if not found.covers(digest):
            reasons = "; ".join(found.reasons) or f"it ended on {found.expires}"
            raise ApiError(
                403, f"the consent was refused: {reasons}"[:1000], "permission_error", "consent", "consent_refused"
            )
        return found

    def forget(self, consent: Consent) -> None:
        """Delete the records of a consent, and its challenge."""
        self._known = {key: found for key, found in self._known.items() if key[0] != consent.id}
        with only_writer(self.folder):
            for path in self.folder.glob("*.json"):
                found = read_checked(self.folder, path.stem)
                if found is not None and found.statement_sha256 == consent.sha256:
                    path.unlink(missing_ok=True)
            if _ID.fullmatch(consent.challenge):
                (self.folder / "challenges" / f"{consent.challenge}.json").unlink(missing_ok=True)

    def _stored(self, consent: Consent, clip_sha256: str) -> Checked | None:
        """Return an accepted check from an earlier run of the server."""
        found = read_checked(self.folder, record_id(consent.sha256, clip_sha256, consent.challenge))
        right = found is not None and found.statement_sha256 == consent.sha256 and found.covers(clip_sha256)
        return found if right else None

    @contextlib.asynccontextmanager
    async def _next(self, consent_id: str | None = None) -> AsyncIterator[None]:
        """Wait for the turn to run the program. Raises ApiError (429) if too many wait, or too many of one consent."""
        if self._waiting.total() >= MOST_WAITING:
            raise busy(f"{self._waiting.total()} consents wait to be checked already", 10.0)
        if consent_id is not None and self._waiting[consent_id] >= MOST_OF_ONE:
            raise busy(f"{self._waiting[consent_id]} clips wait to be checked against this consent already", 10.0)
        self._waiting[consent_id] += 1
        try:
            async with self._turn:
                yield
        finally:
            self._waiting[consent_id] -= 1
            if not self._waiting[consent_id]:
                del self._waiting[consent_id]

    async def _check(self, consent: Consent, clip: bytes, digest: str) -> Checked:
        async with self._next(consent.id):
            # Another request may have brought the same clip meanwhile.
            found = self._known.get((consent.id, digest))
            if found is None:
                await asyncio.to_thread(decode_clip, clip, _CHECK_RATE)
                found = self._known[consent.id, digest] = await self._check_now(consent, clip)
            return found

    async def _check_now(self, consent: Consent, clip: bytes) -> Checked:
        if not self.has_challenge(consent.challenge):
            raise ApiError(
                403,
                f"the consent's sentence ended before a clip was checked: {HOW}",
                "permission_error",
                "consent",
                "consent_refused",
            )
        statement = ConsentFolder(self.folder).recording(consent)
        with _draft(self.folder) as folder:
            reference = folder / "reference"
            await asyncio.to_thread(reference.write_bytes, clip)
            words = [
                "check",
                str(statement),
                f"--reference={reference}",
                f"--challenge={consent.challenge}",
                "--no-audio",
            ]
            found = Checked.of(await self._run(words, CHECK_S))
        if found is None:
            raise _not_checked()
        if found.verdict not in ACCEPTED and _ID.fullmatch(found.id):
            # Clients could fill the disk with refusals. This run of the server remembers them.
            (self.folder / f"{found.id}.json").unlink(missing_ok=True)
        return found

    async def _run(self, words: list[str], most_s: float) -> dict[str, Any] | None:
        """Run the program; return the JSON that it writes, None if it could not do its work. Raises ApiError."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._program,
                *words,
                f"--store={self.folder}",
                "--json",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except (OSError, ValueError):
            raise _not_checked() from None
        try:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
            async with asyncio.timeout(most_s):
                out, told = await process.communicate()
        except TimeoutError:
            log.error("the check of a consent took more than %g s and was ended", most_s)
            raise _not_checked() from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if process.returncode not in (0, 1) or not out.strip():
            log.warning(
                "consent %s: %s", words[0], (told.decode(errors="replace").strip().splitlines() or ["no words"])[-1]
            )
            return None
        with contextlib.suppress(ValueError):
            found = json.loads(out)
            return found if isinstance(found, dict) else None
        return None


@contextlib.contextmanager
def _draft(consents: Path) -> Iterator[Path]:
    """Yield a folder for the clip of a check. It is locked, so that another server does not take it for one left by a kill."""
    with only_writer(consents):
        folder = Path(tempfile.mkdtemp(prefix=_DRAFTS, dir=consents))
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_drafts(consents: Path) -> None:
    """Delete the clips of checks that a kill ended."""
    if not any(consents.glob(f"{_DRAFTS}*")):
        return
    with only_writer(consents):
        for folder in consents.glob(f"{_DRAFTS}*"):
            with contextlib.suppress(OSError):
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
                finally:
                    os.close(lock)


def _not_checked() -> ApiError:
    words = "the consent could not be checked: ask again later; the server's log says why"
    return ApiError(503, words, "server_error", "consent", "consent_not_checked", retry_after_s=30.0, retry=True)
