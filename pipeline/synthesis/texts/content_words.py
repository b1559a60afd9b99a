"""Content words: the words of a text that carry its meaning, in a form that can be compared.

Texts are normalized as for error rates (`catalogs.vocabulary.comparable_text`). Then:

* Languages with spaces: words without the function words of `stopwordsiso`, stemmed by Snowball if it knows the language.
* Chinese: pairs of neighboring characters between function words and punctuation. A single character counts as it is.
* Japanese: the same of kanji; a run of katakana is one word. Hiragana is inflection and particles.
* Korean: pairs of characters within each word, because particles are written onto the word.
* Thai, Lao, Khmer, Burmese: four neighboring characters.
* An unknown language: words of at least four letters.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

from catalogs.vocabulary.comparable_text import is_unspaced, normalize
from catalogs.vocabulary.languages import language as known_language
from catalogs.vocabulary.languages import text_unit

STEMMERS = {
    "ar": "arabic", "da": "danish", "nl": "dutch", "en": "english", "fi": "finnish", "fr": "french", "de": "german",
    "el": "greek", "hi": "hindi", "id": "indonesian", "it": "italian", "no": "norwegian", "pl": "polish",
    "pt": "portuguese", "ru": "russian", "es": "spanish", "sv": "swedish", "tr": "turkish",
}  # fmt: skip
"""Snowball's algorithm of each language."""

_CHINESE_FUNCTION = (
    "的了着过是我你他她它您们这那哪在有和与或就不没别也都很太更最还再又才只被把给让向从到对跟比等吗呢吧啊呀哦嗯嘛啦哎唉哇"
    "个些么什怎谁会能想要得地之其每各去来上下里说看做问叫一二两三几多少大小好样"
)
"""Characters without a meaning by themselves, and the most frequent verbs."""
_CHINESE_WORDS = (
    "今天", "昨天", "明天", "现在", "时候", "以后", "以前", "之后", "之前", "知道", "觉得", "已经", "可能", "应该", "真的",
    "一直", "一下", "一点", "有点", "非常", "特别", "一个", "一定", "一起", "大家", "自己", "还是", "总是", "终于", "刚才",
    "刚刚", "马上", "其实", "好像", "当然", "然后", "需要", "起来", "出来", "回来", "过来", "下来", "上去", "事情", "东西",
    "地方", "这次", "这么", "那么", "多么", "怎么", "什么", "为什么", "所有", "一切", "那天", "早上", "晚上", "每天",
    "因为", "所以", "但是", "而且", "如果", "可以", "可是", "不过", "虽然", "然而", "为了", "关于", "以为", "感觉", "看到",
    "听说", "告诉",
)  # fmt: skip
_JAPANESE_FUNCTION = "私僕俺君彼女方人時事何今日昨明年月後前中上下間一二三見言行来出思"
_KANJI, _KATAKANA = re.compile("[㐀-䶿一-鿿々]+"), re.compile("[゠-ヿ]{2,}")
_CLAUSE_END = re.compile(r"[^\w'’\-]+|_+")
_LONGEST_CACHE = 200_000
"""Texts and words are repeated often while a corpus is compared."""


def content_words(text: str, language: str | None) -> frozenset[str]:
    """Return the words of a text that carry its meaning, without function words and endings.

    They are comparable between texts of one language only. A code outside the known languages is an unknown language.
    """
    code = base_code(language, text)
    split = _SPLITTERS.get(code or "", _spaced)
    return frozenset(split(comparable_parts(text, code), code))


def base_code(language: str | None, text: str = "") -> str | None:
    """Return the code without region or dialect. For an unknown language `zh` if its script has no spaces, otherwise None."""
    known = known_language(language)
    if known:
        return known.code
    return "zh" if text_unit(None, text) == "char" else None


@functools.lru_cache(maxsize=_LONGEST_CACHE)
def comparable_parts(text: str, code: str | None) -> tuple[str, ...]:
    """Return the normalized words of a text, or its clauses in languages without spaces."""
    if code is None or not is_unspaced(code):
        return tuple(normalize(text, code or "und").split())
    # Normalized one by one: without punctuation, the end of a clause and the start of the next would look like a word.
    clauses = (normalize(clause, code) for clause in _CLAUSE_END.split(text))
    return tuple(clause for clause in clauses if clause)


def _spaced(words: Iterable[str], code: str | None) -> Iterable[str]:
    if code is None:
        return (word for word in words if len(word) >= 4)
    stop = stop_words(code)
    return (_stem(word, code) for word in words if word not in stop and (len(word) > 1 or word.isdigit()))


def _chinese(clauses: Iterable[str], code: str | None) -> Iterable[str]:
    for clause in clauses:
        for run in _chinese_breaks().split(clause):
            yield from _grams(run, 2)


def _japanese(clauses: Iterable[str], code: str | None) -> Iterable[str]:
    breaks = re.compile(f"[{_JAPANESE_FUNCTION}]")
    for clause in clauses:
        yield from _KATAKANA.findall(clause)
        for kanji in _KANJI.findall(clause):
            for run in breaks.split(kanji):
                yield from _grams(run, 2)


def _korean(words: Iterable[str], code: str | None) -> Iterable[str]:
    stop = stop_words("ko")
    for word in words:
        if word not in stop and len(word) > 1:
            yield from _grams(word, 2)


def _abugida(clauses: Iterable[str], code: str | None) -> Iterable[str]:
    for clause in clauses:
        yield from _grams(clause, 4)


_SPLITTERS: dict[str, Callable[[Iterable[str], str | None], Iterable[str]]] = {
    "zh": _chinese,
    "ja": _japanese,
    "ko": _korean,
    **dict.fromkeys(("th", "lo", "km", "my"), _abugida),
}


def _grams(run: str, size: int) -> Iterable[str]:
    """Yield every `size` neighboring characters; a shorter run is one gram."""
    if run:
        yield from (run[at : at + size] for at in range(max(1, len(run) - size + 1)))


@functools.cache
def _chinese_breaks() -> re.Pattern[str]:
    words = "|".join(sorted(_CHINESE_WORDS, key=len, reverse=True))
    return re.compile(f"(?:{words}|[{_CHINESE_FUNCTION}])+")


@functools.cache
def stop_words(code: str) -> frozenset[str]:
    """Return the normalized function words of a language; empty if `stopwordsiso` does not know it."""
    import stopwordsiso

    if not stopwordsiso.has_lang(code):
        return frozenset()
    return frozenset(part for word in stopwordsiso.stopwords(code) for part in normalize(word, code).split())


@functools.lru_cache(maxsize=_LONGEST_CACHE)
def _stem(word: str, code: str) -> str:
    stemmer = _stemmer(code)
    return stemmer.stemWord(word) if stemmer else word


@functools.cache
def _stemmer(code: str) -> Any:
    if code not in STEMMERS:
        return None
    import snowballstemmer

    return snowballstemmer.stemmer(STEMMERS[code])
