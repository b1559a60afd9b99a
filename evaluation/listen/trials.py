"""The trials of every session: what the page shows, and what the key knows about it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from evaluation.items import Item
from evaluation.listen.design import Role, Slot, ordered_slots, plan, repeats, shuffled_slots
from evaluation.listen.material import HUMAN, Clip, Material
from evaluation.listen.settings import ListenSettings
from evaluation.listen.sound import ORDERS, TONE_RATE, beeps, hard_clipped, low_passed, three_tones
from evaluation.listen.store import ClipStore

LAYOUTS = {"acr": "rate", "cmos": "compare", "ab": "prefer", "abx": "prefer", "mushra": "sliders"}
"""What the page shows for a kind. The checks have `beeps`, `tones` and `prefer`."""
ANCHORS = {"anchor-3500": 3500.0, "anchor-7000": 7000.0}
BEEPS = 5


@dataclass
class Trials:
    """Makes sessions; `key` has a row per trial id."""

    material: Material
    settings: ListenSettings
    store: ClipStore
    rng: random.Random
    key: dict[str, dict[str, Any]] = field(default_factory=dict)
    level: str = ""
    """The clip by which a listener sets the volume."""

    def __post_init__(self) -> None:
        self._shuffled_conditions = self.conditions()
        # The place of a system in the square says nothing about its place on the command line.
        self.rng.shuffle(self._shuffled_conditions)

    def conditions(self) -> list[tuple[str, ...]]:
        """Return the conditions of the design: systems, or ordered pairs of them; for mushra a single one."""
        systems, against = self.material.systems, self.settings.against
        if self.settings.kind == "acr":
            return [(system,) for system in systems]
        if self.settings.kind == "mushra":
            return [tuple(systems)]
        return [pair for pair in permutations(systems, 2) if against is None or against in pair]

    def session(self, number: int) -> list[dict[str, Any]]:
        """Return the trials of session `number` (from 1) as the page has them; add them to the key."""
        conditions = self._shuffled_conditions
        slots_of = ordered_slots if self.settings.kind == "acr" else shuffled_slots
        slots = slots_of(len(self.material.items), len(conditions), number - 1, self.rng)
        again = repeats(slots, self.settings.repeats, self.rng)
        gold = self.settings.gold and self.settings.kind != "mushra"
        trials = [self._tones(number, order) for order in self._tone_orders()]
        trials += [self._training(number, index, item) for index, item in enumerate(self.material.training)]
        first: dict[Slot, str] = {}
        for role, slot in plan(slots, again, self.settings.attention, gold, self.rng):
            if slot is None:
                trials.append(self._beeps(number) if role == "attention" else self._gold(number))
                continue
            trial = self._main(number, role, self.material.items[slot.item], conditions[slot.condition])
            self.key[trial["id"]] |= {"first": first.setdefault(slot, trial["id"])} if role == "repeat" else {}
            first.setdefault(slot, trial["id"])
            trials.append(trial)
        return trials

    def _trial(self, session: int, role: Role, layout: str, clips: Sequence[str], **shown: Any) -> dict[str, Any]:
        trial = {"id": self.store.new_id(), "layout": layout, "clips": list(clips), **shown}
        self.key[trial["id"]] = {"session": session, "role": role, "layout": layout, "clips": list(clips)}
        return trial

    def _main(self, session: int, role: Role, item: Item, systems: Sequence[str]) -> dict[str, Any]:
        shown: dict[str, Any] = {"training": True} if role == "training" else {}
        shown |= {"text": item.text} if self.settings.show_text else {}
        kind = self.settings.kind
        if kind == "mushra":
            return self._sliders(session, role, item, shown)
        if kind == "abx" or (kind == "acr" and "similarity" in self.settings.scales):
            shown["reference"] = self._reference(item)
        if kind == "acr" and "instruction" in self.settings.scales:
            shown["instruction"] = item.instruction
        clips = [self.store.take(self.material.clips[system, item.id], "system") for system in systems]
        trial = self._trial(session, role, LAYOUTS[kind], clips, lang=item.language, **shown)
        self.key[trial["id"]] |= {"item": item.id, "systems": list(systems)}
        return trial

    def _sliders(self, session: int, role: Role, item: Item, shown: dict[str, Any]) -> dict[str, Any]:
        source = self.material.clips[self.settings.reference, item.id]
        clips = [self.store.take(self.material.clips[s, item.id], "system") for s in self.material.systems]
        for use, hertz in ANCHORS.items():
            clips.append(self.store.take(source, use, lambda samples, hertz=hertz: low_passed(samples, hertz)))
        self.rng.shuffle(clips)
        shown["reference"] = self.store.take(source, "open reference")
        trial = self._trial(session, role, "sliders", clips, lang=item.language, **shown)
        self.key[trial["id"]] |= {"item": item.id}
        return trial

    def _reference(self, item: Item) -> str:
        assert item.reference is not None
        return self.store.take(Clip(item.reference, item, "reference"), "reference")

    def _training(self, session: int, index: int, item: Item) -> dict[str, Any]:
        conditions = self._shuffled_conditions
        return self._main(session, "training", item, conditions[(session + index) % len(conditions)])

    def _beeps(self, session: int) -> dict[str, Any]:
        count = self.rng.randint(1, BEEPS)
        trial = self._trial(session, "attention", "beeps", [self._beep_clips[count - 1]])
        self.key[trial["id"]]["right"] = count
        return trial

    def _gold(self, session: int) -> dict[str, Any]:
        clips = list(self._gold_clips)
        self.rng.shuffle(clips)
        trial = self._trial(session, "gold", "prefer", clips)
        self.key[trial["id"]]["right"] = -1 if clips[0] == self._gold_clips[0] else 1
        return trial

    def _tones(self, session: int, order: tuple[str, ...]) -> dict[str, Any]:
        trial = self._trial(session, "headphone", "tones", [self._tone_clips[order]])
        self.key[trial["id"]]["right"] = order.index("quiet") + 1
        return trial

    def _tone_orders(self) -> list[tuple[str, ...]]:
        return self.rng.sample(ORDERS, self.settings.headphone_trials)

    def make_checks(self) -> None:
        """Make the clips of the checks. The gold pair is a recording of a person, if there is one."""
        settings, item = self.settings, self.material.training[0] if self.material.training else self.material.items[0]
        self._beep_clips = (
            [self.store.add(beeps(count), {"use": f"{count} beeps"}) for count in range(1, BEEPS + 1)]
            if settings.attention
            else []
        )
        source = self.material.clips.get((HUMAN, item.id)) or self.material.clips[self.material.systems[0], item.id]
        if HUMAN not in self.material.systems and (path := item.human or item.reference):
            source = Clip(path, item, HUMAN)
        self.level = self.store.take(source, "volume")
        if settings.gold and settings.kind != "mushra":
            self._gold_clips = (
                self.store.take(source, "gold, clean"),
                self.store.take(source, "gold, clipped", hard_clipped),
            )
        if settings.headphone_trials:
            self._tone_clips = {
                order: self.store.add_exact(three_tones(order, settings.tone_s), TONE_RATE, {"use": " ".join(order)})
                for order in ORDERS
            }
