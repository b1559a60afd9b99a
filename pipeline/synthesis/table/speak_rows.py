"""The stage that speaks the rows of a session and encodes their files, and what workers make of a finished session."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from catalogs.corpus.commit import UnitContent
from catalogs.corpus.ids import short_hash
from catalogs.files import fsync_path, make_folder, one_line
from pipeline.engine.api import Output, SessionDone
from pipeline.records import Recording, Session
from pipeline.stage import LoadError
from pipeline.synthesis.generate_speech import GenerateSpeech
from pipeline.synthesis.requests import SpeechRequest, SpeechSession
from pipeline.synthesis.table.settings import SpeakRowsConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxcpm.inference.utterance import Spoken
    from voxcpm.provenance.c2pa.claim import Clip
    from voxcpm.provenance.statement import Statement

_FSYNCS = 8
"""Files that are forced to the disk at the same time."""


@dataclass(frozen=True)
class SpokenRow:
    """A row that was spoken. `draft`: its file in the session's folder. `seed`: that of the last attempt."""

    draft: str
    seconds: float
    sample_rate: int
    ending: str
    attempts: int
    seed: int | None


@dataclass
class RowsSession(SpeechSession):
    """A session of rows. The source id of a row is the name of its file without the suffix. `checkpoint`: digest of the model."""

    checkpoint: str = ""
    spoken: dict[str, SpokenRow] = field(default_factory=dict)


class SpeakRows(GenerateSpeech):
    """Requests -> a file per row, in the session's folder. What the model does not end by itself is tried again."""

    config_type = SpeakRowsConfig
    config: SpeakRowsConfig
    outputs = ()

    def load(self) -> None:
        from voxcpm.provenance.c2pa.signer import signing_of

        config = self.config
        try:
            options = (config.sign_key, config.sign_cert, config.sign_training, config.sign_tsa)
            self._signing = signing_of(*options, marks=config.mark)
            self._hashed: dict[str, str | None] = {}
        except (ValueError, OSError) as error:
            raise LoadError(one_line(error)) from None
        super().load()
        import tempfile

        from voxcpm.inference.write_audio import write_audio

        rate = self.model.tts_model.sample_rate
        with tempfile.TemporaryDirectory(prefix="voxmill-speak-") as folder:
            try:
                write_audio(Path(folder) / f"test.{self.config.format}", np.zeros(rate, np.float32), rate)
            except ValueError as error:
                raise LoadError(str(error)) from None

    def _options(self, requests: Sequence[SpeechRequest]) -> dict[str, Any]:
        again = {
            "retry_badcase": self.config.attempts > 1,
            "retry_badcase_max_times": self.config.attempts,
            "retry_at_limit": True,
        }
        return super()._options(requests) | again

    def _store(self, session: SpeechSession, recording: Recording, made: Spoken, rate: int, folder: Path) -> None:
        from voxcpm.inference.write_audio import write_audio
        from voxcpm.provenance.watermark_hook import marked_samples
        from voxcpm.watermark import PUBLIC_KEY, checkpoint_payload, speech_mark

        assert isinstance(session, RowsSession)
        name = recording.source.source_id
        draft = folder / f"{name}.{self.config.format}"
        signing = self._signing and replace(self._signing, clips=self._clips(session.requests[name]))
        wav = made.wav
        if self.config.watermark:
            wav = marked_samples(
                wav, rate, speech_mark(session.checkpoint, (PUBLIC_KEY,), made.seed, session.requests[name].text)
            )
            signing = signing and replace(signing, payload=checkpoint_payload(session.checkpoint))
        samples = write_audio(draft, wav, rate, self._mark(session, made.seed), signing)
        recording.duration_s = samples / rate
        session.spoken[name] = SpokenRow(
            str(draft), samples / rate, rate, str(made.ending or "stop"), made.attempts, made.seed
        )

    def _clips(self, request: SpeechRequest) -> tuple[Clip, ...]:
        """Return the hashes of the files that a row was spoken with."""
        from voxcpm.provenance.c2pa.claim import Clip, Role

        found = list[Clip]()
        roles: dict[Role, Any] = {"reference": request.reference, "prompt": request.prompt}
        for role, path in roles.items():
            if isinstance(path, str):
                if path not in self._hashed:
                    self._hashed[path] = Clip.of(path).sha256
                found.append(Clip(self._hashed[path], role))
        return tuple(found)

    def _mark(self, session: RowsSession, seed: int | None) -> Statement | bool:
        """Return what a file states. It has no time: a run that is repeated makes the same bytes."""
        from voxcpm.provenance.statement import Statement

        if not self.config.mark:
            return False
        return Statement(Path(str(self.config.model)).name, session.checkpoint, seed, created=None)


@dataclass(frozen=True)
class RowsContent:
    """The rows of a finished session, by source id: those that were spoken, and why others were not."""

    spoken: dict[str, SpokenRow]
    errors: dict[str, str]
    spool: str


@dataclass(frozen=True)
class RowsOutput(Output):
    """Moves the files of finished sessions below `root` (absolute, on a file system that all workers share)."""

    root: Path

    def split(self, session: Session) -> tuple[SessionDone, RowsContent]:
        """See `Output.split`."""
        assert isinstance(session, RowsSession)
        usable = {recording.source.source_id for recording in session.usable()}
        errors = {row.source_id: _told(row.error) for row in session.quarantine}
        spoken = {name: row for name, row in session.spoken.items() if name in usable}
        session.requests, session.spoken = {}, {}
        return super().split(session)[0], RowsContent(spoken, errors, session.spool)

    def write(self, unit: UnitContent, contents: Iterable[RowsContent]) -> dict[str, Any]:
        """Move the files to their places; they are on the disk when this returns. The record names them by source id.

        May run again after a kill in the middle: a file that was moved before is left in its place.
        """
        rows: dict[str, Any] = {}
        errors: dict[str, str] = {}
        for content in contents:
            for name, spoken in content.spoken.items():
                draft = Path(spoken.draft)
                rows[name] = asdict(spoken) | {"audio": audio_name(name, draft.suffix)}
            errors |= content.errors
            moves = [(Path(row["draft"]), self.root / row["audio"]) for row in rows.values()]
            # The manifest beside a file comes first: a file that is in its place has one.
            moves = [*_manifests(moves), *moves]
            with ThreadPoolExecutor(_FSYNCS) as threads:
                list(threads.map(lambda move: _move(*move), moves))
                list(threads.map(fsync_path, {final.parent for _, final in moves}))
            shutil.rmtree(content.spool, ignore_errors=True)
        return {"unit_id": unit.unit_id, "spoken": rows, "errors": errors}


def audio_name(name: str, suffix: str) -> str:
    """Return the path of a row's file, relative to the output folder. `suffix` begins with a dot."""
    return f"audio/{short_hash(name)[:2]}/{name}{suffix}"


def _move(draft: Path, final: Path) -> None:
    make_folder(final.parent)
    if draft.exists() or not final.exists():
        fsync_path(draft)
        os.replace(draft, final)  # noqa: PTH105


def _manifests(moves: list[tuple[Path, Path]]) -> Iterator[tuple[Path, Path]]:
    """Yield the moves of the manifests that stand beside files."""
    from voxcpm.provenance.c2pa.store import sidecar_of

    for draft, final in moves:
        if sidecar_of(draft).exists():
            yield sidecar_of(draft), sidecar_of(final)


def _told(error: str) -> str:
    """Return the error of a row without its number in the batch."""
    return re.sub(r"^(\w+: )?item \d+: ", "", error)
