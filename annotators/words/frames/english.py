"""English captions from attributes: sentence frames around the wordings of lexicons/en.toml."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from annotators.schema import Attributes
from annotators.words.claims import claims
from annotators.words.frames.english_voice import Voice
from annotators.words.frames.picker import Picker
from annotators.words.frames.traits import (
    MOODS,
    MUST,
    Trait,
    events,
    names_identity,
    parted,
    roles,
    traits,
    with_identity,
)
from annotators.words.lexicon import Lexicon, with_article

MOST_TAG_WORDS = 8
FULL_WORDS = (10, 40)
MOST_PERSONA_WORDS = 25
_PRONOUNS = {
    "male": {"{his}": "his", "{he}": "he", "{him}": "him", "{himself}": "himself"},
    "female": {"{his}": "her", "{he}": "she", "{him}": "her", "{himself}": "herself"},
}
THEY = {"{his}": "their", "{he}": "they", "{him}": "them", "{himself}": "themselves"}


class Writer:
    """The wordings of one caption. identity: chosen by the voice; the rest by the clip."""

    def __init__(self, attributes: Attributes, words: Lexicon, pick: Picker, identity: Picker) -> None:
        self.attributes, self.words, self.pick = attributes, words, pick
        self.voice = Voice(attributes, words, identity)
        self._pronouns = _PRONOUNS.get(attributes.gender, THEY)

    def say(self, trait: Trait, cls: str, plain: bool = False) -> str:
        """Return one wording of a trait. plain: without a pronoun."""
        choices = self.words.words(*trait, cls)
        phrase = self.pick([c for c in choices if "{" not in c] if plain else choices)
        return _with_pronouns(phrase, self._pronouns) if "{" in phrase else phrase

    def adjectives(self, found: Sequence[Trait]) -> str:
        return joined([self.say(trait, "adj") for trait in found])

    def phrases(self, found: Sequence[Trait]) -> str:
        """Noun phrases with their articles."""
        return joined([with_article(self.say(trait, "np")) for trait in found])

    def adverbials(self, found: Sequence[Trait], plain: bool = False) -> str:
        """What follows "speaks": adverbs first, then phrases of at, in and with, then participles."""
        return adverbials([self.say(trait, "adv", plain) for trait in found])


def write(register: str, attributes: Attributes, words: Lexicon, pick: Picker, identity: Picker) -> str | None:
    """Return the caption of a register, or None if there is nothing to say in it."""
    return _FRAMES[register](Writer(attributes, words, pick, identity))


def count(text: str) -> int:
    """Return the number of words; a word with hyphens is one."""
    return len(text.split())


def joined(parts: Sequence[str]) -> str:
    """Return "a", "a and b" or "a, b, and c"."""
    if len(parts) < 3:
        return " and ".join(parts)
    return f"{', '.join(parts[:-1])}, and {parts[-1]}"


def adverbials(parts: Sequence[str]) -> str:
    """Return adverbs and phrases in an order that reads well."""
    single = [part for part in parts if " " not in part or (part.startswith("very ") and part.count(" ") == 1)]
    late = [part for part in parts if part.startswith("sounding ")]
    phrases = [part for part in parts if part not in single and part not in late]
    phrases.sort(key=lambda part: (part.startswith("with"), part))
    if len(single) > 1 and phrases:
        text = f"{joined(single)}, {joined(phrases)}"
    elif len(phrases) == 1 and single and phrases[0].startswith("with "):
        text = f"{single[0]} {phrases[0]}"
    else:
        text = joined([*single, *phrases])
    return ", ".join(filter(None, [text, *late]))


def _with_pronouns(phrase: str, pronouns: dict[str, str]) -> str:
    return re.sub(r"\{\w+\}", lambda found: pronouns[found[0]], phrase)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


# ---- brief


def _brief(w: Writer) -> str | None:
    identity = w.voice.tag()
    room = MOST_TAG_WORDS - count(identity)
    found = traits(w.attributes, w.words, "adj")
    tags: list[str] = []
    for at, trait in enumerate(found):
        # Leave a word for each tag that must follow.
        left = room - sum(name in MUST for name, _ in found[at + 1 :])
        every = w.words.words(*trait, "adj") + w.words.words(*trait, "tag")
        choices = [tag for tag in every if count(tag) <= left]
        if len(tags) > 4 or not choices:
            continue
        tags.append(w.pick(choices))
        room -= count(tags[-1])
    text = ", ".join(with_identity(tags, identity, w.pick))
    return text[:1].upper() + text[1:] or None


# ---- style


def _style(w: Writer) -> str | None:
    found = w.pick.shuffled(traits(w.attributes, w.words, "adv")[:4])
    if not found:
        return None
    with_np = [trait for trait in found if w.words.words(*trait, "np") and w.words.words(*trait, "adj")]
    frames: list[Callable[[], str]] = [
        lambda: f"{w.pick(['speak', 'talk', 'say it', 'read it', 'deliver it'])} {w.adverbials(found, plain=True)}",
        lambda: f"{w.pick(['spoken', 'delivered', 'said', 'read'])} {w.adverbials(found, plain=True)}",
    ]
    if len(with_np) == len(found):
        frames += [
            lambda: f"the {w.pick(['delivery', 'speech', 'manner of speaking'])} is {w.adjectives(found)}",
            lambda: f"{w.pick(['keep', 'use', 'aim for', 'go for', 'choose'])} {w.phrases(found)}",
        ]
    if len(with_np) == len(found) > 1:
        head, tail = found[: len(found) // 2], found[len(found) // 2 :]
        frames += [
            lambda: w.adjectives(found),
            lambda: w.phrases(found),
            lambda: f"{w.adjectives(head)}, with {w.phrases(tail)}",
            lambda: f"{with_article(', '.join(w.say(trait, 'adj') for trait in head))} delivery with {w.phrases(tail)}",
            lambda: f"{', '.join(w.say(trait, 'adj') for trait in head)} speech with {w.phrases(tail)}",
            lambda: f"{w.phrases(head)}; the delivery is {w.adjectives(tail)}",
        ]
    clauses = [trait for trait in found if w.words.words(*trait, "clause")]
    if len(clauses) == len(found) > 1:
        frames.append(lambda: joined([w.say(trait, "clause") for trait in found]))
    return _sentence(w.pick(frames)())


# ---- full


def _full(w: Writer) -> str | None:
    found = traits(w.attributes, w.words, "adv")
    if not found and not names_identity(w.attributes):
        return None
    must, rest = parted(found)
    sounds = events(w.attributes, w.words, "adv")[:1]
    text = ""
    for most in range(min(len(rest), 5 - len(must)), -1, -1):
        shuffled = w.pick.shuffled(must + rest[:most])
        text = _full_of(w, shuffled)
        if sounds:
            text = f"{text[:-1]}, {w.say(sounds[0], 'adv')}."
        if count(text) < FULL_WORDS[0]:
            text = _padded(w, shuffled)
        if count(text) <= FULL_WORDS[1]:
            break
        sounds = []
    return text


def _padded(w: Writer, found: Sequence[Trait]) -> str:
    """Return a sentence of enough words, though little is known."""
    if not found:
        return f"The voice that can be heard in this {w.pick(['recording', 'clip', 'sample'])} belongs to {w.voice.person}."
    start = w.pick(
        [
            "from the first word to the last",
            "all the way through the recording",
            "from the beginning of the clip to its end",
            "in every part of this short clip",
            "for as long as the recording lasts",
        ]
    )
    return _sentence(f"{start}, {w.voice.person} {w.pick(['speaks', 'talks'])} {w.adverbials(found)}")


def _full_of(w: Writer, found: list[Trait]) -> str:
    pick, who = w.pick, w.voice.person
    if not found:
        return _padded(w, found)
    verb = pick(["speaks", "talks"])
    half = max(len(found) // 2, 1)
    head, tail = found[:half], found[half:]
    mood = [trait for trait in found if trait[0] in MOODS and w.words.words(*trait, "adj")][:1]
    others = [trait for trait in found if trait not in mood]
    return _sentence(pick.weighted(_frames(w, found, head, tail, mood, others, who, verb))())


def _frames(
    w: Writer,
    found: list[Trait],
    head: list[Trait],
    tail: list[Trait],
    mood: list[Trait],
    others: list[Trait],
    who: str,
    verb: str,
) -> Iterator[tuple[int, Callable[[], str]]]:
    """Yield (weight, frame) of the frames that fit. Frames that begin with the voice are rare: the clips of one voice would all
    begin alike."""
    pick = w.pick

    def ending(rest: list[Trait]) -> str:
        return f" {w.adverbials(rest)}" if rest else ""

    def has(rest: list[Trait], cls: str) -> bool:
        return bool(rest) and all(w.words.words(*trait, cls) for trait in rest)

    yield 1, lambda: f"{who} {verb} {w.adverbials(found)}"
    yield 1, lambda: f"{w.voice.sound} speaks {w.adverbials(found)}"
    yield 3, lambda: f"{pick(_LEADS)}, {who} {verb} {w.adverbials(found)}"
    yield 3, lambda: f"{pick(_HEARD)} {who} {pick(['speaking', 'talking'])} {w.adverbials(found)}"
    if mood and others:
        yield 4, lambda: f"{pick(['speaking', 'talking'])} {w.adverbials(others)}, {who} sounds {w.adjectives(mood)}"
    if tail:
        front = [
            p
            for p in w.words.words(*found[0], "adv")
            if p.startswith(("at ", "in ", "with ", "without ")) and "{" not in p
        ]
        if front:
            yield 4, lambda: f"{pick(front)}, {who} {verb} {w.adverbials(found[1:])}"
        if has(head, "adj") and has(tail, "np"):
            yield 2, lambda: f"{', '.join(w.say(t, 'adj') for t in head)} speech from {who}, with {w.phrases(tail)}"
            yield (
                2,
                lambda: f"the {pick(['speech', 'delivery'])} of {who} is {w.adjectives(head)}, with {w.phrases(tail)}",
            )
            yield (
                2,
                lambda: (
                    f"{with_article(', '.join(w.say(t, 'adj') for t in head))} delivery by {who}, with {w.phrases(tail)}"
                ),
            )
        if has(head, "adj"):
            yield 2, lambda: f"the delivery is {w.adjectives(head)}, and {who} {verb} {w.adverbials(tail)}"
        if has(tail, "adj"):
            yield (
                2,
                lambda: (
                    f"{pick(_HEARD)} {who} {pick(['speaking', 'talking'])} {w.adverbials(head)}."
                    f" The delivery is {w.adjectives(tail)}"
                ),
            )
        if has(found[:2], "np"):
            yield (
                2,
                lambda: (
                    f"{w.phrases(found[:2])} {pick(['mark', 'shape', 'characterize'])} the {pick(['speech', 'delivery'])} of {who}"
                    + (f", who {verb} {w.adverbials(found[2:])}" if found[2:] else "")
                ),
            )
        if has(found[:2], "np") and found[2:]:
            yield 2, lambda: f"with {w.phrases(found[:2])}, {who} {verb} {w.adverbials(found[2:])}"
        if has(found[:2], "clause"):
            yield 2, lambda: f"{joined([w.say(t, 'clause') for t in found[:2]])} as {who} {verb}{ending(found[2:])}"
    if has(head, "clause"):
        yield (
            2,
            lambda: (
                f"{joined([w.say(t, 'clause') for t in head])}. The {pick(['words come', 'voice comes'])} from {who}"
                + (f"{w.voice.relative} {verb} {w.adverbials(tail)}" if tail else "")
            ),
        )


_LEADS = (
    "in this clip",
    "here",
    "in this recording",
    "throughout",
    "from start to finish",
    "in the sample",
    "all along",
)
_HEARD = ("you hear", "we hear", "this is", "listen to", "the clip has", "the recording has", "one hears")


# ---- persona


def _persona(w: Writer) -> str | None:
    found = traits(w.attributes, w.words, "who")
    if not found and not names_identity(w.attributes):
        return None
    known = roles(w.attributes, w.words)
    if known:
        found = [trait for trait in found if trait[0] != "delivery"]
    found = w.pick.shuffled(found[:5])[:4]
    who, relative = w.voice.character, w.voice.relative
    scene = _scene(w)
    for most in range(len(found), -1, -1):
        habits = _habits([w.say(trait, "who") for trait in found[:most]])
        role = f", as {with_article(w.pick(known))}" if known else ""
        frame = w.pick(_PERSONAS)
        if habits and frame == "{s}":
            text = w.pick(
                [f"{who}{relative} {habits}", f"someone who {habits}: {who}", f"a character who {habits}: {who}"]
            )
        else:
            text = frame.format(s=f"{who}{relative} {habits}" if habits else who)
        text = _sentence(text + role)
        for whole in (f"{text} Scene: {scene}.", f"Scene: {scene}. {text}") if scene else (text,):
            if count(whole) <= MOST_PERSONA_WORDS:
                return whole
        if count(text) <= MOST_PERSONA_WORDS:
            return text
    return None


def _habits(said: Sequence[str]) -> str:
    """Return what follows "who". "Speaks quickly and speaks softly" becomes "speaks quickly and softly"."""
    speaks = [phrase.removeprefix("speaks ") for phrase in said if phrase.startswith("speaks ")]
    if len(speaks) < 2:
        return joined(said)
    rest = [phrase for phrase in said if not phrase.startswith("speaks ")]
    first = f"speaks {adverbials(speaks)}"
    return f"{first}, and {rest[0]}" if len(rest) == 1 else joined([first, *rest])


_PERSONAS = (
    "play {s}", "picture {s}", "imagine {s}", "think of {s}", "become {s}", "talk like {s}", "act as {s}", "the part of {s}",
    "the role of {s}", "cast {s}", "sound like {s}", "this is {s}", "give the lines to {s}", "lend your voice to {s}",
    "step into the shoes of {s}", "wanted: {s}", "in character as {s}", "put yourself in the place of {s}",
    "be {s}", "{s}", "{s}", "{s}",
)  # fmt: skip


def _scene(w: Writer) -> str:
    """Return the scenario if it is English and says nothing else of the voice, otherwise ""."""
    scenario = w.attributes.scenario.strip().rstrip(".")
    if not re.fullmatch(r"[A-Za-z0-9 ,'-]+", scenario) or claims(scenario, "en"):
        return ""
    return scenario[:1].lower() + scenario[1:] if scenario[1:2].islower() else scenario


_FRAMES: dict[str, Callable[[Writer], str | None]] = {
    "brief": _brief,
    "style": _style,
    "full": _full,
    "persona": _persona,
}
