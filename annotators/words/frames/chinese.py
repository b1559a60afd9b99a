"""Chinese captions from attributes: clauses of lexicons/zh.toml between commas, with the voice at one of several places."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from annotators.schema import Attributes
from annotators.words.claims import claims
from annotators.words.frames.picker import Picker
from annotators.words.frames.traits import Trait, events, names_identity, parted, roles, traits, with_identity
from annotators.words.lexicon import Lexicon
from catalogs.vocabulary.voices import UNSURE

MOST_TAG_CHARACTERS = 36
FULL_CHARACTERS = (10, 90)
MOST_PERSONA_CHARACTERS = 50
_NOUNS = {"male": ("男性", "男子", "男士"), "female": ("女性", "女子", "女士"), UNSURE: ("说话人", "讲话者")}
_AGED = {"young": "年轻人", "middle": "中年人", "senior": "老人"}
_SOUNDS = {"male": "男声", "female": "女声", UNSURE: "嗓音"}


class Voice:
    """Names of a voice: as a person (一位嗓音低沉的男性), as a sound (低沉的男声) and as a tag (低沉男声)."""

    def __init__(self, attributes: Attributes, words: Lexicon, pick: Picker) -> None:
        gender, age = attributes.gender, attributes.age
        self._one = pick(("一位", "一名"))
        noun, sound = pick(_NOUNS[gender]), _SOUNDS[gender]
        self._age = pick(words.words("age", age, "attr") or ("",)) if age in ("young", "middle", "senior") else ""
        if age in ("child", "teen"):
            noun = pick(words.words("age", age, f"noun_{gender}") or words.words("age", age, "noun"))
            sound, self._one = f"{noun}嗓音", "一个"
        elif gender == UNSURE and self._age:
            noun, self._age = _AGED[age], ""
        self._noun, self._sound = noun, sound
        self._clause = pick(words.words("pitch", attributes.pitch, "clause") or ("",))
        self._attr = pick(words.words("pitch", attributes.pitch, "attr") or ("",))
        textures = [pick(words.words("texture", value, "attr")) for value in attributes.texture]
        self._texture = f"{pick(('音色', '声音'))}{'、'.join(textures)}" if textures else ""
        self._textures = textures
        accent = words.accents.get(attributes.accent, "")
        self._accent = f"带{accent}口音" if accent else ""
        self.known = names_identity(attributes)

    def person(self, more: Sequence[str] = ()) -> str:
        """Return 一位…的男性, with more clauses before 的."""
        marks = "、".join(filter(None, [self._accent, self._clause, self._texture, *more]))
        return f"{self._one}{marks}{'的' if marks else ''}{self._age}{self._noun}"

    def sound(self) -> str:
        marks = "、".join(filter(None, [self._accent, self._attr, *self._textures]))
        return f"{marks}{'的' if marks else ''}{self._age}{self._sound}"

    def tag(self) -> str:
        """Return 低沉男声, "" if nothing is sure."""
        if not self.known or (
            self._sound == "嗓音" and not self._attr and not self._textures and self._noun in _NOUNS[UNSURE]
        ):
            return ""
        attr = self._attr or (self._textures[0] if self._textures else "")
        if self._sound == "嗓音" and not attr and not self._age:
            return self._noun
        return f"{attr}{'的' if len(attr) > 2 else ''}{self._age}{self._sound}"


class Writer:
    """The wordings of one caption. identity: chosen by the voice; the rest by the clip."""

    def __init__(self, attributes: Attributes, words: Lexicon, pick: Picker, identity: Picker) -> None:
        self.attributes, self.words, self.pick = attributes, words, pick
        self.voice = Voice(attributes, words, identity)

    def clauses(self, found: Sequence[Trait], chained: bool = False) -> list[str]:
        """Return a clause of each trait. chained: they stand before a 的 and hold none."""
        said = []
        for trait in found:
            choices = self.words.words(*trait, "clause")
            said.append(self.pick([c for c in choices if "的" not in c] or choices if chained else choices))
        return said


def write(register: str, attributes: Attributes, words: Lexicon, pick: Picker, identity: Picker) -> str | None:
    """Return the caption of a register, or None if there is nothing to say in it."""
    return _FRAMES[register](Writer(attributes, words, pick, identity))


# ---- brief


def _brief(w: Writer) -> str | None:
    tags = [w.pick(_tags(w, trait)) for trait in traits(w.attributes, w.words, "tag")[:5]]
    identity = w.voice.tag()
    while sum(map(len, tags)) + len(identity) + len(tags) > MOST_TAG_CHARACTERS:
        tags.pop()
    return "，".join(with_identity(tags, identity, w.pick)) or None


def _tags(w: Writer, trait: Trait) -> tuple[str, ...]:
    """Return the tags of a trait: its own, and its clauses that are as short."""
    own = w.words.words(*trait, "tag")
    return own + tuple(c for c in w.words.words(*trait, "clause") if len(c) <= 4 and "的" not in c and c not in own)


# ---- style


def _style(w: Writer) -> str | None:
    found = w.pick.shuffled(traits(w.attributes, w.words, "clause")[:4])
    if not found:
        return None
    manner = [trait for trait in found if w.words.words(*trait, "adv")]
    if manner and w.pick.below(3) == 0:
        rest = [trait for trait in found if trait != manner[0]]
        opening = f"{w.pick(w.words.words(*manner[0], 'adv'))}{w.pick(('说话', '说出来', '讲出来', '念出来'))}"
        return "，".join([opening, *w.clauses(rest)]) + "。"
    clauses = w.clauses(found)
    leads = [lead for lead in _STYLE_LEADS if not (_speaks(lead) and _speaks(clauses[0]))]
    return f"{w.pick(leads)}{'，'.join(clauses)}。"


_STYLE_LEADS = (
    "",
    "",
    "",
    "",
    "说话时",
    "全程",
    "整体",
    "讲话时",
    "从头到尾",
    "念的时候",
    "开口时",
    "通篇",
    "始终",
    "整段",
)


def _speaks(text: str) -> bool:
    return any(sign in text for sign in "说话讲念开")


# ---- full


def _full(w: Writer) -> str | None:
    found = traits(w.attributes, w.words, "clause")
    if not found and not w.voice.known:
        return None
    must, rest = parted(found)
    sounds = events(w.attributes, w.words, "np")[:1]
    text = ""
    for most in range(min(len(rest), 5 - len(must)), -1, -1):
        clauses = w.clauses(w.pick.shuffled(must + rest[:most]))
        clauses += [f"夹杂着{w.pick(w.words.words(*sound, 'np'))}" for sound in sounds]
        text = _full_of(w, clauses)
        if len(text) <= FULL_CHARACTERS[1]:
            break
    return text


def _full_of(w: Writer, clauses: list[str]) -> str:
    pick, who = w.pick, w.voice.person()
    if not clauses:
        return pick((f"这段录音里说话的是{who}。", f"录音中能听到的是{who}的声音。", f"从头到尾说话的都是{who}。"))
    return pick.weighted(_frames(w, clauses, who))()


def _frames(w: Writer, clauses: list[str], who: str) -> Iterator[tuple[int, Callable[[], str]]]:
    """Yield (weight, frame). Frames that begin with the voice are rare: the clips of one voice would all begin alike."""
    pick = w.pick
    every = "，".join(clauses)
    half = max(len(clauses) // 2, 1)
    head, tail = "，".join(clauses[:half]), "，".join(clauses[half:])
    yield 1, lambda: f"{who}，{every}。"
    yield 1, lambda: f"{w.voice.sound()}，{every}。"
    yield 5, lambda: f"{every}，{pick(('说话的是', '开口的是', '讲话的是', '这是', '听得出是', '声音来自'))}{who}。"
    yield 4, lambda: f"{pick(_LEADS)}{who}{pick(('在说话', '在讲话', '开口说话'))}，{every}。"
    yield 4, lambda: pick(_SAID).format(who=who, every=every)
    if tail:
        yield 3, lambda: f"{head}，{who}{pick(('就这样说着', '这样讲着', '一路说下来'))}，{tail}。"
        yield 3, lambda: f"{head}。{pick(('说话的是', '讲话的是', '声音来自'))}{who}，{tail}。"
        yield 2, lambda: f"{pick(('整段录音', '这一段', '通篇'))}{head}，{tail}，由{who}道出。"


_LEADS = ("录音里，", "这段录音中，", "这一段里，", "片段中，", "从头到尾，", "可以听到", "只听", "耳边传来的声音里，")
_SAID = (
    "这段话由{who}说出，{every}。",
    "这段话出自{who}之口，{every}。",
    "声音的主人是{who}，{every}。",
    "说话人是{who}，{every}。",
    "听起来是{who}，{every}。",
    "录下的是{who}的声音，{every}。",
)


# ---- persona


def _persona(w: Writer) -> str | None:
    found = w.pick.shuffled(traits(w.attributes, w.words, "clause")[:5])[:3]
    if not found and not w.voice.known:
        return None
    known = roles(w.attributes, w.words)
    role = f"，身份是{w.pick(known)}" if known else ""
    scene = _scene(w)
    for most in range(len(found), -1, -1):
        split = w.pick.below(most + 1)
        chained, plain = w.clauses(found[:split], chained=True), w.clauses(found[split:most])
        text = w.pick(_PERSONAS).format(who=w.voice.person(chained))
        text = "，".join([text, *plain]) + role + "。"
        if scene and len(text) + len(scene) + 4 <= MOST_PERSONA_CHARACTERS:
            return f"场景：{scene}。{text}"
        if len(text) <= MOST_PERSONA_CHARACTERS:
            return text
    return None


_PERSONAS = (
    "扮演{who}", "想象{who}", "设想{who}", "{who}", "角色是{who}", "演{who}", "换{who}来说", "为{who}配音",
    "把自己当成{who}",
    "这里需要{who}", "声音的主人是{who}", "这是{who}", "就像{who}", "仿佛{who}在眼前",
    "请来{who}", "化身为{who}", "代入{who}", "找{who}来念",
)  # fmt: skip


def _scene(w: Writer) -> str:
    """Return the scenario if it is Chinese and says nothing else of the voice, otherwise ""."""
    scenario = w.attributes.scenario.strip().rstrip("。")
    return scenario if re.fullmatch(r"[\u4e00-\u9fff，、]+", scenario) and not claims(scenario, "zh") else ""


_FRAMES: dict[str, Callable[[Writer], str | None]] = {
    "brief": _brief,
    "style": _style,
    "full": _full,
    "persona": _persona,
}
