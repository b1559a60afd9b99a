"""`voxmill train`, `voxmill train-codec`, `voxmill encode` and `voxmill lineage`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catalogs.durations import duration_text
from catalogs.words import counted
from voxmill.terminal import JsonOption, Terminal

if TYPE_CHECKING:
    from catalogs.lineage.record import DrawnRecording
    from trainer.dryrun.lineage import LineageReport
    from trainer.dryrun.segment_use import SegmentUse


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(train)
    app.command(name="train-codec")(train_codec)
    app.command()(encode)
    app.command()(lineage)


STOPPED = "stopped early; run the same command to continue"


def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="YAML with settings, or the name of a recipe: toy, stage1, ...")
    ],
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. seed=1.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and print the plan: data, steps, memory, disk.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train VoxCPM2 on a corpus; saves checkpoints that `speak` loads. Run the same command to resume, bit for bit.

    On several GPUs: torchrun --nproc-per-node 8 -m voxmill.cli train stage1 ... (see docs/training.md).

    Example:  voxmill train toy --set corpus=demo/corpus --set output=demo/model
    """
    from trainer.config import TrainError, load_train_config

    terminal = Terminal(as_json)
    # Loaded before torch is imported, so that a wrong name is reported at once.
    settings = load_train_config(config, set_ or [])
    from trainer.run import train as run
    from trainer.runtime.ranks import PeerError

    if dry_run:
        from trainer.dryrun.plan import plan

        planned = plan(settings)
        if os.environ.get("RANK", "0") != "0":
            return
        for line in planned.lines():
            terminal.say(line)
        terminal.result(planned.as_dict())
        if planned.problem is not None:
            raise TrainError(planned.problem)
        return
    try:
        with terminal.printing("trainer"):
            result = run(settings)
    except PeerError:
        # The rank that failed has printed the reason.
        raise typer.Exit(1) from None
    if os.environ.get("RANK", "0") != "0":
        return
    terminal.say(f"checkpoint: {result.checkpoint}; loss {result.first_loss:.3f} -> {result.last_loss:.3f}")
    if result.stopped_early:
        terminal.say(STOPPED)
    if result.best is not None:
        terminal.say(f"best checkpoint: {result.best} -> {Path(result.best).readlink()}")
    terminal.result(asdict(result))


def train_codec(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="YAML with settings, or the name of a recipe: toy, v2.")
    ],
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. steps=100.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train an audio codec on a corpus: `toy` in minutes for models from scratch, `v2` at the published widths on a GPU.

    Example:  voxmill train-codec toy --set corpus=demo/corpus --set output=demo/codec
    """
    from trainer.codec import load_codec_config
    from trainer.codec import train_codec as run

    terminal = Terminal(as_json)
    with terminal.printing("trainer"):
        result = run(load_codec_config(config, set_ or []))
    if result.stopped_early:
        terminal.say(STOPPED)
        terminal.result(asdict(result))
        return
    terminal.say(
        f"codec: {result.folder}; held-out clips: {result.after} (mel distance before {result.before.mel:.3f}, to other"
        f" clips {result.after.mel_other:.3f})"
    )
    terminal.result(asdict(result))


def encode(
    corpus: Annotated[Path, typer.Argument(help="A corpus folder.", metavar="CORPUS")],
    codec: Annotated[
        str,
        typer.Option(
            "--codec", "--model", help="The checkpoint to be trained (folder or hub id), or a codec of train-codec."
        ),
    ],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1 ...")] = "auto",
    batch_s: Annotated[float, typer.Option(help="Seconds of audio that a GPU encodes at once.", min=1.0)] = 240.0,
    threads: Annotated[int | None, typer.Option(help="CPU threads; torch's choice if not given.", min=1)] = None,
    as_json: JsonOption = False,
) -> None:
    """Store the codec's latents of the kept segments beside the corpus, so that training does not encode: 12 MB per hour.

    May be killed at any time. Run the same command to resume; it also encodes segments added since. Training uses the latents
    automatically if they are from the model's codec.

    Example:  voxmill encode demo/corpus --codec demo/model/latest
    """
    from trainer.encode_corpus import encode_corpus
    from trainer.runtime.device import cpu_threads
    from voxmill.progress import EncodeProgress

    terminal = Terminal(as_json)
    with EncodeProgress(terminal) as progress, cpu_threads(threads), terminal.printing("trainer"):
        stats = encode_corpus(corpus, codec, device, batch_s, progress)
    rate = f", {stats.speech_s / stats.seconds:.0f} times real time" if stats.encoded else ""
    terminal.say(
        f"{corpus}: {stats.encoded} segments encoded ({duration_text(stats.speech_s)}{rate}), {stats.already} were done;"
        f" codec {stats.codec}"
    )
    terminal.result(asdict(stats))


def lineage(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A checkpoint, an adapter, or the output folder of a run.")
    ],
    recording: Annotated[
        str | None,
        typer.Option(help="Only this recording: an audio file, or its path, id, session or SHA-256 in the corpus."),
    ] = None,
    segment: Annotated[
        str | None, typer.Option(help="Only this segment, by its id: computed from the order of the data.")
    ] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option(help="Where a corpus of the run is now; may be repeated. Default: as in train.yaml of the run."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a checkpoint was trained on: corpora, hours by license, parents, and how often a recording was used.

    A sample counts as used from the step whose batch it was in. What is not known, such as the data of a parent without a
    lineage, is said plainly.

    Example:  voxmill lineage demo/model/latest
    """
    from trainer.dryrun.lineage import lineage as look

    terminal, report = Terminal(as_json), look(model, recording, segment, corpus or ())
    if report.recordings is None and report.segment is None:
        _say_lineage(terminal, report)
    if report.recordings is not None:
        _say_recordings(terminal, str(recording), report.recordings)
    if report.segment is not None:
        terminal.say(_segment_words(report.segment))
    for sentence in report.lineage.unknown:
        terminal.say(f"not known: {sentence}")
    terminal.result(report.as_dict())


def _say_lineage(terminal: Terminal, report: LineageReport) -> None:
    found = report.lineage
    terminal.say(f"{found.folder}: {found.kind} {found.digest}, step {found.step}, voxmill {found.voxmill}")
    columns = [
        "corpus", "generation", "recordings", "samples", "hours", "as reference", "through synthetic speech", "codec's clips",
    ]  # fmt: skip
    terminal.table(
        "Used, by corpus (generation 0: by the run itself, 1: by its parent's, ...)",
        columns,
        [list(vars(use).values()) for use in report.uses],
    )
    terminal.table(
        "Used, by license, with all parents",
        ["license", "recordings", "their hours", "hours in batches"],
        [[name, share.recordings, share.hours, share.drawn_hours] for name, share in found.licenses.items()],
    )
    for one in found.corpora:
        terminal.say(f"corpus {one.name}: folder {one.folder}, digest {one.digest}")
    held = found.held_out
    terminal.say(
        f"held out, never trained on: {counted(held.segments, 'segment')} of {counted(held.recordings, 'recording')},"
        f" {held.hours:.3f} h"
    )
    for parent in found.ancestors:
        place = report.found.get(parent.digest or "")
        known = "" if parent.known else ", no lineage"
        terminal.say(
            f"{'  ' * (parent.generation - 1)}{parent.role}: {parent.name} ({parent.digest or 'not found'}{known})"
            + (f", in {place}" if place else "")
        )
    if not found.ancestors:
        terminal.say("no parent: the weights were random when the run began")
    for note in found.notes:
        terminal.say(f"note: {note}")
    if found.tombstones:
        terminal.say(f"obeyed {counted(len(found.tombstones), 'tombstone')}: {', '.join(found.tombstones)}")


def _say_recordings(terminal: Terminal, wanted: str, rows: tuple[DrawnRecording, ...]) -> None:
    if not rows:
        terminal.say(f"{wanted}: not in the lineage, so it was not trained on as far as is known")
    for row in rows:
        run = "" if not row.generation else f" by an ancestor of generation {row.generation}"
        if not row.used:
            terminal.say(f"{row.source_id} of {row.corpus}: not used, {counted(row.held_out, 'segment')} held out")
            continue
        uses = [
            f"{counted(row.draws, 'sample')} ({row.drawn_s / 3600:.3f} h)",
            f"{counted(row.as_reference, 'time')} as reference",
            f"{counted(row.through_decoupled, 'time')} through synthetic speech",
        ]
        uses += [f"{counted(row.in_codec, 'clip')} in the codec's training"] * bool(row.in_codec)
        first = f"first in step {row.first_step} of phase {row.first_phase}" if row.first_step else "first by the codec"
        terminal.say(f"{row.source_id} of {row.corpus}: used{run}: {', '.join(uses)}; {first}")


def _segment_words(use: SegmentUse) -> str:
    if use.first_step is None:
        return f"segment {use.segment_id}: not drawn{', held out' if use.held_out else ''}"
    return (
        f"segment {use.segment_id}: {counted(use.draws, 'sample')}, {counted(use.as_reference, 'time')} as reference,"
        f" {counted(use.through_decoupled, 'time')} through synthetic speech; first in step {use.first_step} of phase"
        f" {use.first_phase}"
    )
