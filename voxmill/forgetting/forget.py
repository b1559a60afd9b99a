"""`forget`: plan, hide, erase; resume what was killed; list what was forgotten."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from catalogs.corpus.commit import corpus_info
from catalogs.corpus.locks import only_run
from catalogs.corpus.tombstones import ERASED, Tombstone, read_tombstones, write_tombstone
from catalogs.files import file_sha256
from voxmill.forgetting.checkpoints import check_checkpoints, newest_unaffected
from voxmill.forgetting.derived import (
    Step,
    derived_places,
    lost_lines,
    name_of,
    note_derived,
    step_of,
    tombstones_with,
)
from voxmill.forgetting.erase import Say, erase, hide, hide_locked
from voxmill.forgetting.plan import Plan, corpus_plan, prints_of, tombstone_of
from voxmill.forgetting.scope import ForgetError, Request, choose


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
    places = derived_places(root, given=derived)
    with ExitStack() as locks:
        if yes:
            # From before the plan until all is hidden: what a run commits between would be in neither.
            for place in (root, *places):
                locks.enter_context(only_run(place))
        before = _before(root, request, scope["sha256"])
        try:
            steps = _steps(root, request, scope, with_copies, places, reason, requested_by)
            own = steps[0].tombstone
        except ForgetError as error:
            if before is None or not derived:
                raise ForgetError(f"{error}{_told(root, before, with_copies)}") from None
            # The same was forgotten: it is forgotten in further corpora.
            steps, own = [step for place in places if (step := step_of(place, before.segment_ids, before))], before
            if not steps:
                raise ForgetError(
                    f"nothing in what --derived names is made of it, or is left{_told(root, before, with_copies)}"
                ) from None
        plan = Plan(tuple(corpus_plan(step.root, step.chosen, step.tombstone.id) for step in steps))
        if models is not None:
            plan = with_checkpoints(plan, Path(models), [own, *(step.tombstone for step in steps)])
        if not yes:
            return plan
        if own is before:
            names = (*own.derived, *(name_of(root, step.root) for step in steps))
            write_tombstone(root, replace(own, derived=tuple(dict.fromkeys(names))))
        for step in steps:
            # The corpus first: its tombstone names the others, for a resumed run.
            prints = prints_of(step.root, step.chosen) if keep_prints else []
            hide_locked(step.root, replace(step.tombstone, prints=len(prints)), prints)
            say(f"{step.root}: hidden from all readers (tombstone {step.tombstone.id})")
    problems = [
        line for place in (root, *derived_places(root, read_tombstones(root), derived)) for line in erase(place, say)
    ]
    return replace(plan, state=ERASED, problems=tuple(problems))


def resume_forgetting(
    corpus: str | Path, say: Say = lambda line: None, derived: Sequence[str | Path] = ()
) -> list[str]:
    """End what a killed `forget` has begun, in the corpus and in those that were made of it. Return what fsck finds, and corpora
    of synthetic speech that are not found. derived: where such corpora are, if they were moved.

    Raises CorpusError for a folder that is not a corpus, CorpusBusyError while a run is at work.
    """
    root = Path(corpus).absolute()
    corpus_info(root)
    tombstones = read_tombstones(root)
    places = derived_places(root, tombstones, derived) if tombstones or derived else ()
    for found in tombstones:
        for place in places:
            if step := step_of(place, found.segment_ids, found):
                prints = prints_of(place, step.chosen) if found.prints else []
                hide(place, replace(step.tombstone, prints=len(prints)), prints)
                say(f"{place}: hidden from all readers (tombstone {step.tombstone.id})")
        note_derived(root, found, places)
    problems = [line for place in (root, *places) for line in erase(place, say)]
    return problems + lost_lines(root, read_tombstones(root), places)


def list_forgotten(corpus: str | Path, models: str | Path | None = None) -> tuple[list[Tombstone], Plan]:
    """Return the tombstones of a corpus, and a plan with nothing but the checkpoints below `models` that were trained on it.

    The state of the plan is also that of the corpora that were made of it. Raises CorpusError for a folder that is not a corpus.
    """
    root = Path(corpus).absolute()
    corpus_info(root)
    found = read_tombstones(root)
    places = derived_places(root, found) if found else ()
    everything = [*found, *tombstones_with(places, found)]
    left = [one.state for one in everything if one.state != ERASED]
    plan = Plan((), state=left[0] if left else ERASED)
    if models is None:
        return found, plan
    return found, with_checkpoints(plan, Path(models), everything, lost_lines(root, found, places))


def with_checkpoints(plan: Plan, models: Path, tombstones: Sequence[Tombstone], lacking: Sequence[str] = ()) -> Plan:
    """Return the plan with what is known of the checkpoints below a folder. Raises FileNotFoundError.

    lacking: what is not known of synthetic speech; then no checkpoint is taken for unaffected.
    """
    sources = {name for found in tombstones for name in (*found.source_ids, *found.partial_ids)}
    contents = {content for found in tombstones for content in found.content_sha256}
    checked = check_checkpoints(models, sources, contents)
    if lacking:
        why = "; ".join(lacking)
        checked = [
            replace(one, verdict="unknown", why=why) if one.verdict == "not affected" else one for one in checked
        ]
    newest = {run: one.path if one else None for run, one in newest_unaffected(checked).items()}
    return replace(plan, checkpoints=tuple(checked), unaffected=newest)


def _steps(
    root: Path,
    request: Request,
    scope: dict[str, str],
    with_copies: bool,
    places: Sequence[Path],
    reason: str | None,
    requested_by: str | None,
) -> list[Step]:
    """Return what is forgotten in the corpus, and in the corpora of synthetic speech that was made of it."""
    alike: dict[str, float] = {}
    if request.like is not None:
        from voxmill.forgetting.likeness import segments_like

        alike = segments_like(root, request.like, request.cosine)
    chosen = choose(root, request, with_copies, alike)
    own = tombstone_of(chosen, scope, reason, requested_by)
    steps = [step for place in places if (step := step_of(place, chosen.ids, own))]
    return [Step(root, chosen, replace(own, derived=tuple(name_of(root, step.root) for step in steps))), *steps]


def _before(root: Path, request: Request, scope: str) -> Tombstone | None:
    """Return the tombstone of what a request names, if it was forgotten before."""
    content = None
    if request.recording is not None:
        path = Path(request.recording).expanduser()
        content = file_sha256(path) if path.is_file() else request.recording
    for found in read_tombstones(root):
        if found.scope.get("sha256") == scope or content in found.content_sha256 or content in found.source_ids:
            return found
    return None


def _told(root: Path, found: Tombstone | None, with_copies: bool) -> str:
    """Return what to add to a message that nothing was found: the same was forgotten before."""
    if found is None:
        return ""
    command = f"voxmill forget {shlex.quote(str(root))}"
    places = derived_places(root, [found])
    if found.state != ERASED or any(one.state != ERASED for one in tombstones_with(places, [found])):
        return f"; it is hidden and not erased yet (tombstone {found.id}): {command} --resume"
    copies = "; what copies it had is not known any more: name their recordings with --recording" if with_copies else ""
    return f"; it was forgotten (tombstone {found.id}). Its checkpoints: {command} --list --models DIR{copies}"
