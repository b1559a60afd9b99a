"""`forget`: plan, hide, erase; resume what was killed; list what was forgotten."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from catalogs.corpus.commit import corpus_info
from catalogs.corpus.tombstones import ERASED, Tombstone, read_tombstones, standing
from catalogs.files import file_sha256
from pipeline.synthesis.decouple import default_out
from voxmill.forgetting.checkpoints import check_checkpoints, newest_unaffected
from voxmill.forgetting.erase import Say, erase, hide
from voxmill.forgetting.plan import Plan, corpus_plan, prints_of, tombstone_of
from voxmill.forgetting.scope import Chosen, ForgetError, Request, choose, made_of


def forget(
    corpus: str | Path,
    *,
    recording: str | None = None,
    session: str | None = None,
    speaker: str | None = None,
    speaker_id: str | None = None,
    like: str | Path | None = None,
    cosine: float | None = None,
    with_copies: bool = False,
    derived: Sequence[str | Path] = (),
    models: str | Path | None = None,
    reason: str | None = None,
    requested_by: str | None = None,
    keep_prints: bool = True,
    yes: bool = False,
    say: Say = lambda line: None,
) -> Plan:
    """Do what `voxmill forget` does; return the plan. Nothing is changed without `yes`.

    One of: recording (path, id or content hash), session, session with speaker (a voice of that session), speaker_id (the owner's
    pseudonym), like (a clip of the voice; cosine: how near). with_copies: also segments elsewhere with the same audio. derived:
    corpora of synthetic speech that was made of this one; CORPUS-decoupled is found by itself. models: folder of checkpoints.
    reason: is stored. requested_by: only its hash is. keep_prints: keep audio prints to recognize re-encoded copies.

    Raises ForgetError for a request that cannot be met, CorpusError for a folder that is not a corpus, CorpusBusyError while a run
    is at work.
    """
    root = Path(corpus).absolute()
    corpus_info(root)
    request = Request(recording, session, speaker, speaker_id, Path(like) if like is not None else None, cosine)
    scope = request.scope()
    before = _before(root, request, scope["sha256"])
    try:
        steps = _steps(root, request, scope, with_copies, derived, reason, requested_by)
    except ForgetError as error:
        raise ForgetError(f"{error}{before}") from None
    plan = Plan(tuple(corpus_plan(step.root, step.chosen, step.tombstone.id) for step in steps))
    if models is not None:
        plan = with_checkpoints(plan, Path(models), [step.tombstone for step in steps])
    if not yes:
        return plan
    for step in reversed(steps):
        # What was made of the corpus first: the tombstone of the corpus names the others, for a resumed run.
        prints = prints_of(step.root, step.chosen) if keep_prints else []
        hide(step.root, replace(step.tombstone, prints=len(prints)), prints)
        say(f"{step.root}: hidden from all readers (tombstone {step.tombstone.id})")
    problems = [line for step in steps for line in erase(step.root, say)]
    return replace(plan, state=ERASED, problems=tuple(problems))


def resume_forgetting(corpus: str | Path, say: Say = lambda line: None) -> list[str]:
    """End what a killed `forget` has begun, in the corpus and in those that were made of it. Return what fsck finds.

    Raises CorpusError for a folder that is not a corpus, CorpusBusyError while a run is at work.
    """
    root = Path(corpus).absolute()
    corpus_info(root)
    derived = dict.fromkeys(Path(path) for found in read_tombstones(root) for path in found.derived)
    return [line for place in (root, *derived) if (place / "corpus.json").is_file() for line in erase(place, say)]


def list_forgotten(corpus: str | Path, models: str | Path | None = None) -> tuple[list[Tombstone], Plan]:
    """Return the tombstones of a corpus, and a plan with nothing but the checkpoints below `models` that were trained on it.

    Raises CorpusError for a folder that is not a corpus.
    """
    root = Path(corpus).absolute()
    corpus_info(root)
    found = read_tombstones(root)
    plan = Plan((), state=standing(root)[0].state if standing(root) else ERASED)
    return found, plan if models is None else with_checkpoints(plan, Path(models), found)


def with_checkpoints(plan: Plan, models: Path, tombstones: Sequence[Tombstone]) -> Plan:
    """Return the plan with what is known of the checkpoints below a folder. Raises FileNotFoundError."""
    sources = {name for found in tombstones for name in (*found.source_ids, *found.partial_ids)}
    contents = {content for found in tombstones for content in found.content_sha256}
    checked = check_checkpoints(models, sources, contents)
    newest = {run: one.path if one else None for run, one in newest_unaffected(checked).items()}
    return replace(plan, checkpoints=tuple(checked), unaffected=newest)


@dataclass(frozen=True)
class _Step:
    """What is forgotten in one corpus."""

    root: Path
    chosen: Chosen
    tombstone: Tombstone


def _steps(
    root: Path,
    request: Request,
    scope: dict[str, str],
    with_copies: bool,
    derived: Sequence[str | Path],
    reason: str | None,
    requested_by: str | None,
) -> list[_Step]:
    """Return what is forgotten in the corpus, and in the corpora of synthetic speech that was made of it."""
    alike: Sequence[str] = ()
    if request.like is not None:
        from voxmill.forgetting.likeness import segments_like

        alike = sorted(segments_like(root, request.like, request.cosine))
    chosen = choose(root, request, with_copies, alike)
    steps = []
    own = default_out(root)
    places = [Path(path).absolute() for path in derived]
    for place in dict.fromkeys([*places, *([own] if (own / "corpus.json").is_file() else [])]):
        corpus_info(place)
        if place.resolve() == root.resolve():
            raise ForgetError(f"{place} is the corpus itself: --derived names corpora of synthetic speech made of it")
        if (found := made_of(place, chosen.ids)) is not None:
            told = {"by": "derived", "sha256": scope["sha256"]}
            steps.append(_Step(place, found, tombstone_of(found, told, reason, requested_by)))
    tombstone = tombstone_of(chosen, scope, reason, requested_by)
    return [_Step(root, chosen, replace(tombstone, derived=tuple(str(step.root) for step in steps))), *steps]


def _before(root: Path, request: Request, scope: str) -> str:
    """Return what to add to a message that nothing was found: the same may be forgotten already."""
    content = None
    if request.recording is not None:
        path = Path(request.recording).expanduser()
        content = file_sha256(path) if path.is_file() else request.recording
    for found in read_tombstones(root):
        if found.scope.get("sha256") == scope or content in found.content_sha256 or content in found.source_ids:
            command = f"voxmill forget {shlex.quote(str(root))}"
            if found.state == ERASED:
                return f"; it was forgotten (tombstone {found.id}). Its checkpoints: {command} --list --models DIR"
            return f"; it is hidden and not erased yet (tombstone {found.id}): {command} --resume"
    return ""
