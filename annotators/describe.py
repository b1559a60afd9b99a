"""What `voxmill describe` does: an offline annotator over all kept segments, or a service over the selected ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from annotators.paid.estimate import Estimate
from annotators.paid.pass_options import PassOptions, PassStats
from annotators.paid.selected_pass import Wanted, describe_selected, estimate_selected, wanted
from annotators.providers import ANNOTATORS, REMOTE, remote_provider
from annotators.runner import DescribeStats, describe_corpus
from catalogs.extensions import ExtensionError


def describe(
    corpus: str | Path,
    annotator: str = "acoustic",
    *,
    model: str | None = None,
    base_url: str | None = None,
    languages: Sequence[str] | None = None,
    limit: int | None = None,
    everything: bool = False,
    options: PassOptions | None = None,
) -> DescribeStats | PassStats:
    """Describe the voices and styles of the kept segments of a corpus. Run again, it resumes.

    annotator: built-in name, entry point or `module:Class`. The other arguments are for those that are asked over a network:
    model and base_url of the service; languages of the captions (`own`: the clip's); limit: only the first clips of the
    selection; everything: all kept segments instead of the selection; options: cap, limits, prices.
    Raises ValueError for an argument that does not fit, PassStoppedError if the service fails for good, CorpusError.
    """
    if not is_remote(annotator):
        given = {
            "model": model, "base-url": base_url, "languages": languages, "limit": limit, "all": everything or None,
            "cap-usd": options.cap_usd if options else None,
        }  # fmt: skip
        _refuse(annotator, [name for name, value in given.items() if value is not None])
        return describe_corpus(corpus, annotator)
    make = partial(remote_provider, annotator, model, base_url, languages)
    return describe_selected(corpus, make, options, wanted(corpus, limit, everything))


def price(
    corpus: str | Path,
    annotator: str,
    *,
    model: str | None = None,
    base_url: str | None = None,
    languages: Sequence[str] | None = None,
    limit: int | None = None,
    everything: bool = False,
    options: PassOptions | None = None,
) -> tuple[Wanted, Estimate, int | None]:
    """Return the selection, what `describe` would still cost with these arguments, and how many clips the cap surely pays for.

    Nothing is sent or written. Raises ValueError for an offline annotator, which costs nothing; otherwise as `describe`.
    """
    if not is_remote(annotator):
        raise ValueError(f"{annotator} costs nothing: run it without --dry-run")
    clips = wanted(corpus, limit, everything)
    make = partial(remote_provider, annotator, model, base_url, languages)
    return clips, *estimate_selected(corpus, make, options, clips)


def is_remote(annotator: str) -> bool:
    """Return True if an annotator is asked over a network. Raises ExtensionError for an unknown name, naming all known ones."""
    if annotator in REMOTE.ours or annotator in ANNOTATORS.ours:
        return annotator in REMOTE.ours
    try:
        ANNOTATORS.place(annotator)
    except ExtensionError as error:
        try:
            REMOTE.place(annotator)
        except ExtensionError:
            raise ExtensionError(f"{error}. Over a network: {', '.join(REMOTE.ours)}") from None
        return True
    if ":" not in annotator:
        return False
    try:
        REMOTE.find(annotator)
    except ExtensionError:
        # The other table says what is wrong with a class that is of neither kind.
        return False
    return True


def _refuse(annotator: str, options: Sequence[str]) -> None:
    if options:
        names = ", ".join(f"--{name}" for name in options)
        raise ValueError(f"{annotator} works offline on all kept segments: leave out {names}")
