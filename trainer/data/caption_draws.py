"""Which caption of a segment comes before the text: drawn by the register and by the language."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from catalogs.candidates.captions import CAPTIONS
from catalogs.candidates.table import CAPTION_FLAGS, Table
from catalogs.vocabulary.voices import REGISTERS
from trainer.config import Phase
from trainer.runtime.seeds import random_bits, stream_key, uniform
from trainer.sample_kinds import SampleKind

NO_CAPTION = -1
_FULL, _BRIEF, _STYLE, _PERSONA = (REGISTERS.index(name) for name in ("full", "brief", "style", "persona"))
_NUMBERS = np.array([[CAPTIONS.index((name, spoken)) for spoken in ("en", "zh")] for name in REGISTERS], dtype=np.int8)
"""int8 [registers, 2]: the indices of a register's English and Chinese captions."""
_FLAGS = np.array(CAPTION_FLAGS, dtype=np.uint16)[_NUMBERS]


class CaptionDraws:
    """Draws captions; that of choice i depends only on (seed, phase, its segment, its kind, i).

    The register is drawn by the weights of the kind, then the language. `style` and `persona` have their own stream.
    A segment without the one that was drawn is treated as if only brief and full were asked for. So segments with no other
    captions than these get the ones that they got before there were others.
    """

    def __init__(self, phase: Phase, name: str, seed: int, kinds: Sequence[SampleKind]) -> None:
        streams = ("brief", "register", "caption language")
        self._brief_bits, self._register_bits, self._language_bits = (stream_key(seed, name, n) for n in streams)
        self._described = np.array([kind.description for kind in kinds])
        weights = np.array([_weights(kind, phase) for kind in kinds]).reshape(-1, len(REGISTERS))
        self._style, self._persona = weights[:, _STYLE], weights[:, _PERSONA]
        both = weights[:, _BRIEF] + weights[:, _FULL]
        self._brief = np.where(both > 0, weights[:, _BRIEF] / np.where(both > 0, both, 1.0), phase.brief_share)
        self.asked = {
            kind.layout: {name: float(share) for name, share in zip(REGISTERS, row, strict=True) if share}
            for kind, row in zip(kinds, weights, strict=True)
            if kind.description
        }
        """Requested shares of the registers, by layout."""
        self.asked_chinese = phase.chinese_captions.model_dump()
        """Requested shares of Chinese captions: for speech in Chinese, and for other speech."""

    def draw(self, table: Table, rows: np.ndarray, kinds: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Return int8 [N]: the index of each choice's caption in CAPTIONS, or NO_CAPTION. rows: of the table. kinds: indices.
        places: numbers of the choices."""
        has = (table.flags[rows] & _FLAGS[:, :, None]) != 0  # [registers, 2, N]
        short = uniform(random_bits(self._brief_bits, places)) < self._brief[kinds]
        usual = np.where(short, _BRIEF, _FULL)
        drawn = uniform(random_bits(self._register_bits, places))
        style = self._style[kinds]
        wanted = np.where(drawn < style, _STYLE, np.where(drawn < style + self._persona[kinds], _PERSONA, usual))
        register, at = np.full(len(rows), _STYLE), np.arange(len(rows))
        for choice in (_PERSONA, _BRIEF, _FULL, usual, wanted):  # the last one that a segment has is taken
            register = np.where(has[choice, :, at].any(axis=1), choice, register)
        share = np.where(table.is_chinese[table.language[rows]], *self.asked_chinese.values())
        chinese = uniform(random_bits(self._language_bits, places)) < share
        english, other = has[register, 0, at], has[register, 1, at]
        found = _NUMBERS[register, (other & (chinese | ~english)).astype(int)]
        return np.where(self._described[kinds], found, np.int8(NO_CAPTION))


def _weights(kind: SampleKind, phase: Phase) -> list[float]:
    """Return the share of each register of REGISTERS in the descriptions of a kind."""
    given = phase.captions.model_dump() if len(kind.registers) > 1 else {}
    weights = [given.get(name, 1.0) if name in kind.registers else 0.0 for name in REGISTERS]
    total = sum(weights)
    return [weight / total for weight in weights] if total else weights
