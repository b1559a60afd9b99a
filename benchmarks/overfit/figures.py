"""The curves, as PNG and CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from trainer.runtime.metrics import read_metrics

_SMOOTHED = 50
"""Steps over which curves are averaged, because each step has other clips and other noise."""


def smoothed(run: Path, keys: Sequence[str]) -> list[dict[str, float]]:
    """Return the means of a run's metrics over ranges of steps."""
    rows = read_metrics(run)
    stretches = [rows[at : at + _SMOOTHED] for at in range(0, len(rows), _SMOOTHED)]
    return [
        {"step": stretch[-1]["step"], **{key: float(np.mean([row[key] for row in stretch])) for key in keys}}
        for stretch in stretches
    ]


def write_csv(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Write one line per row, with the columns of the first row."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in rows)


def draw_codec(runs: Sequence[tuple[str, Path]], folder: Path) -> None:
    """Write codec.png and codec.csv: the mel distance of crops through the codec, over all of its stages."""
    joined, first = [], 0.0
    figure, axes = plt.subplots(figsize=(6, 3.4))
    for title, run in runs:
        rows = smoothed(run, ["loss/mel", "loss/waveform"])
        for row in rows:
            row["step"] += first
        axes.plot([row["step"] for row in rows], [20 * row["loss/mel"] for row in rows], label=title)
        joined += rows
        first = rows[-1]["step"]
    axes.set(xlabel="step", ylabel="mel distance, dB", title="Codec: reconstructions of training clips")
    axes.legend()
    _save(figure, folder / "codec.png")
    write_csv(folder / "codec.csv", joined)


def draw_model(run: Path, heard: Sequence[dict[str, float]], folder: Path) -> None:
    """Write model.png, model.csv and wer.csv: both losses, and the WER of training sentences at each checkpoint."""
    rows = smoothed(run, ["loss/diffusion", "loss/stop"])
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4))
    left.semilogy([row["step"] for row in rows], [row["loss/diffusion"] for row in rows], label="diffusion")
    left.semilogy([row["step"] for row in rows], [max(row["loss/stop"], 1e-5) for row in rows], label="stop")
    left.set(xlabel="step", ylabel="loss", title="Model: training losses")
    left.legend()
    right.plot([row["step"] for row in heard], [100 * row["wer_reference"] for row in heard], "o-")
    right.axhline(30, color="gray", linestyle="--", linewidth=1)
    right.set(xlabel="step", ylabel="WER, %", title="Whisper on generated training sentences", ylim=(0, None))
    _save(figure, folder / "model.png")
    write_csv(folder / "model.csv", rows)
    write_csv(folder / "wer.csv", heard)


def draw_similarity(table: dict[str, dict[str, float]], folder: Path) -> None:
    """Write similarity.png: GE2E cosine of generated speech (rows: given reference) to the voices of the corpus (columns)."""
    given, voices = list(table), list(next(iter(table.values())))
    values = np.array([[table[row][voice] for voice in voices] for row in given])
    figure, axes = plt.subplots(figsize=(5.4, 4.2))
    axes.imshow(values, cmap="viridis", vmin=0.4, vmax=1.0)
    for i, j in np.ndindex(*values.shape):
        axes.text(
            j, i, f"{values[i, j]:.2f}", ha="center", va="center", color="white" if values[i, j] < 0.75 else "black"
        )
    axes.set_xticks(range(len(voices)), voices, rotation=30, ha="right")
    axes.set_yticks(range(len(given)), given)
    axes.set(xlabel="likeness to", ylabel="reference given", title="GE2E cosine of generated speech")
    _save(figure, folder / "similarity.png")


def _save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
