"""Counting, comparing and aligning texts, and the judgment on a given transcript; no recognizer is needed here."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from pipeline.records import TimedText, Word
from pipeline.text import (
    comparable,
    count_characters,
    count_syllables,
    error_rate,
    rate_is_unusual,
    share_out,
    share_spans,
    word_error_rate,
)
from pipeline.text.compare import edit_distance
from pipeline.text.invented import loops, signs_of_invention
from pipeline.text.letters import split_pieces
from pipeline.text.match import MatchRules, WordSupport, judge
from pipeline.text.stock_phrases import CREDIT_OPENINGS, CREDITS
from pipeline.text.timing import time_words

words = st.lists(st.sampled_from(["one", "two", "three", "four", "five", "six"]), min_size=0, max_size=12)


@given(st.lists(words, min_size=1, max_size=6))
def test_a_perfect_transcript_is_shared_out_as_recognised(parts: list[list[str]]) -> None:
    recognized = [" ".join(part) for part in parts]
    assert share_out(" ".join(text for text in recognized if text).upper(), recognized) == [
        text.upper() for text in recognized
    ]


@given(st.lists(words, min_size=1, max_size=6), words, st.sampled_from(["word", "char"]))
def test_nothing_of_a_transcript_is_lost_or_doubled(parts: list[list[str]], given_words: list[str], unit: str) -> None:
    shares = share_out(" ".join(given_words), [" ".join(part) for part in parts], unit)
    assert len(shares) == len(parts)
    assert "".join(shares).replace(" ", "") == "".join(given_words)


def test_share_out_bears_errors_near_the_border() -> None:
    given = "Good evening, everyone. My name is Allison; please hold the line."
    shares = share_out(given, ["good evening every one", "my name's Alison", "please hold a line"])
    assert shares == ["Good evening, everyone.", "My name is Allison;", "please hold the line."]
    assert share_out("你好世界", ["你好", "世界"], "char") == ["你好", "世界"]


@pytest.mark.parametrize(
    ("text", "syllables", "characters"),
    [
        ("Kids are talking by the door.", 7, 23),
        ("南洋大厦停车场", 7, 7),
        ("こんにちは きょう", 7, 8),
        ("안녕하세요", 5, 5),
        ("Я иду домой", 5, 9),
        ("", 0, 0),
        ("... !", 0, 0),
    ],
)
def test_counts(text: str, syllables: int, characters: int) -> None:
    assert count_characters(text) == characters
    assert count_syllables(text) == pytest.approx(syllables, abs=1)


def test_error_rate() -> None:
    assert error_rate("Good Evening!", "good evening") == 0.0
    assert error_rate("god evening", "good evening") == pytest.approx(1 / 11)
    assert error_rate("", "abc") == 1.0 and error_rate("", "...") == 0.0 and error_rate("x", "") == 1.0


@given(st.text("abc", max_size=30), st.text("abc", max_size=30))
def test_edit_distance_is_levenshteins(ours: str, theirs: str) -> None:
    assert edit_distance(ours, theirs) == Levenshtein.distance(ours, theirs)


@pytest.mark.parametrize(
    ("ours", "theirs", "language"),
    [
        ("Don't — stop!", "dont stop", "en"),
        ("peut-être", "peut être", "fr"),
        ("grabación", "grabacion", "es"),
        ("ещё", "еще", "ru"),
        ("كِتَابٌ", "كتاب", "ar"),
        ("שָׁלוֹם", "שלום", "he"),
        ("ＡＢＣ。", "abc", "ja"),
        ("Straße", "strasse", "de"),
    ],
)
def test_what_is_no_difference_in_a_language(ours: str, theirs: str, language: str) -> None:
    assert error_rate(ours, theirs, language) == 0 == word_error_rate(ours, theirs, language)


def test_accents_that_matter_stay() -> None:
    assert error_rate("für", "fur", "de") > 0 and error_rate("कि", "की", "hi") > 0
    assert comparable("Größe, é") == "grösse é"


def test_error_rates_by_script() -> None:
    assert word_error_rate("good morning all", "good evening all", "en") == pytest.approx(1 / 3)
    assert word_error_rate("你好世间", "你好世界", "zh") == pytest.approx(1 / 4)
    assert word_error_rate("สวัสดีครับ", "สวัสดีครับ", "th") == 0


def test_a_number_is_the_same_in_digits_and_in_words() -> None:
    assert error_rate("Press 7 now", "press seven now", "en") == 0
    assert error_rate("Room 204", "room two hundred and four", "en") == 0
    assert error_rate("Room 204", "room 205", "en") > 0
    assert error_rate("7", "please hold the line while I try that extension for you", "en") == 1.0
    assert error_rate("the 5th time", "the fifth time", "en") == 0, "digits with letters are a number as well"
    assert error_rate("the 5th time", "the time", "en") > 0 and error_rate("7 8", "7", "en") > 0


@pytest.mark.parametrize(
    ("digits", "words", "same"),
    [
        ("7", 4, True),  # up to 3 words a digit and one more
        ("7", 5, False),
        ("12", 7, True),
        ("12", 8, False),
        ("1234", 8, True),  # and up to 8 a number
        ("1234", 9, False),
        ("1234 5678", 16, True),
        ("1234 5678", 17, False),
    ],
)
def test_a_number_is_said_in_a_few_words(digits: str, words: int, same: bool) -> None:
    said = " ".join("one" for _ in range(words))
    for ours, theirs in ((digits, said), (said, digits)):
        assert (error_rate(f"room {ours} there", f"room {theirs} there", "en") == 0) is same
    assert error_rate(f"room {digits} so there", f"room {said} there", "en") > 0


def test_a_number_counts_as_said_in_a_long_text_as_well() -> None:
    text = ["so", "and", "so"] * 100
    ours, theirs = ([*text, word, "so", "and"] for word in ("7", "seven"))
    assert error_rate(" ".join(ours), " ".join(theirs), "en") == 0 == word_error_rate(" ".join(ours), " ".join(theirs))


@pytest.mark.parametrize(
    ("text", "language", "found"),
    [
        ("no " * 6, "en", False),
        ("no " * 7, "en", True),
        ("I know that. " * 5, "en", True),
        ("ha" * 6 + " " + "m" * 9, "en", False),
        ("well " + "ha" * 13, "en", True),
        ("哈" * 9, "zh", False),
        ("哈" * 12, "zh", True),
        ("0 0 0 0 0 0 0 0 0 0 0", "en", False),
        ("the cat sat on the mat and the cat sat on the rug", "en", False),
    ],
)
def test_loops(text: str, language: str, found: bool) -> None:
    assert loops(text, language) == found


def test_signs_of_invention() -> None:
    assert signs_of_invention("Субтитры сделал DimaTorzok.", "ru", 2.0) == ["stock_phrase"]
    assert signs_of_invention("Sous-titrage Société Radio-Canada", "fr", 2.5) == ["stock_phrase"]
    assert signs_of_invention("請不吝點贊 訂閱 轉發", "zh", 3.0, logprob=-0.9) == ["stock_phrase"]
    # People do say this: it counts only in doubt.
    assert signs_of_invention("Thank you.", "en", 1.0, logprob=-0.2, no_speech_p=0.05) == []
    assert signs_of_invention("Thank you.", "en", 1.0, logprob=-0.9, no_speech_p=0.05) == ["stock_phrase"]
    assert signs_of_invention("Thank you for holding, Mary.", "en", 2.0, logprob=-0.9) == []
    assert signs_of_invention("", "en", 1.0) == []


#: What people say with the words that credits begin with.
SPOKEN = [
    ("en", "She read the captions by the paintings before she left."),
    ("en", "Subtitles by the way were awful."),
    ("de", "Die Untertitel im Kino waren schwer zu lesen."),
    ("es", "Los subtítulos realizados por mi hermana eran mejores."),
    ("it", "I sottotitoli creati dalla scuola sono gratuiti."),
    ("nl", "De film is ondertiteld door de leerlingen."),
    ("pl", "Napisy stworzone przez uczniów były dobre."),
    ("pt", "A transcrição e legendas ficam prontas amanhã."),
    ("ru", "Субтитры делал мой брат, он редактор субтитров."),
    ("da", "Danske tekster af kvinder læses for lidt."),
    ("zh", "视频好看的话请不吝点赞和分享给朋友"),
]


@pytest.mark.parametrize(("language", "text"), SPOKEN)
def test_speech_about_subtitles_is_kept_unless_the_recogniser_was_in_doubt(language: str, text: str) -> None:
    assert "stock_phrase" not in signs_of_invention(text, language, 4.0, logprob=-0.2, no_speech_p=0.05)


def test_no_phrase_of_the_lists_counts_within_a_sentence_in_doubt_unless_it_is_a_name() -> None:
    for code, phrases in CREDIT_OPENINGS.items():
        for phrase in phrases:
            spaced = phrase if code in ("ja", "zh") else f" {phrase}"
            assert "stock_phrase" not in signs_of_invention(f"xyz{spaced} abc", code, 3.0, logprob=-0.9), phrase
            assert "stock_phrase" in signs_of_invention(f"{phrase} abc", code, 3.0, logprob=-0.9), phrase
    for code, phrases in CREDITS.items():
        for phrase in phrases:
            assert "stock_phrase" in signs_of_invention(f"{phrase} abc", code if code != "*" else "en", 3.0), phrase


def test_rates_by_language() -> None:
    assert rate_is_unusual("hello there my good old friend", 0.8, "en")
    assert rate_is_unusual("hello there", 9.0, "en")
    assert not rate_is_unusual("hello there my good old friend", 2.0, "en")
    # Twelve letters a second are slow English and impossible Chinese.
    assert rate_is_unusual("你好世界" * 6, 2.0, "zh") and not rate_is_unusual("abcd" * 6, 2.0, "en")
    assert not rate_is_unusual("1234567", 9.0, "en") and not rate_is_unusual("hello there", 9.0, "xx")


TEXT = "Good evening, everyone. My name is Allison; please hold the line."


def test_times_share_out_a_transcript() -> None:
    spans = [
        TimedText(0.0, 2.0, "Good evening, everyone."),
        TimedText(2.0, 5.0, "My name is Allison; please hold the line."),
    ]
    places = [(0.1, 1.9), (2.2, 3.4), (3.6, 4.9)]
    heard = ["good evening every one", "my name's Alison", "please hold a line"]
    assert share_spans(spans, places, heard) == [
        "Good evening, everyone.",
        "My name is Allison;",
        "please hold the line.",
    ]
    # A part said where no segment is stays out, and a segment without a part gets nothing.
    far = [TimedText(20.0, 21.0, "Not here."), *spans[:1]]
    assert share_spans(sorted(far, key=lambda s: s.start_s), places, heard) == ["Good evening, everyone.", "", ""]
    assert share_spans(spans, [], []) == []


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0.1, 3)), max_size=6), st.lists(st.floats(0.2, 4), max_size=6))
def test_a_part_goes_to_one_group_of_places_only(parts: list[tuple[float, float]], lengths: list[float]) -> None:
    spans = [TimedText(a, a + b, f"w{i}") for i, (a, b) in enumerate(sorted(parts))]
    edges = [0.0]
    for length in lengths:
        edges.append(edges[-1] + length)
    places = list(itertools.pairwise(edges))
    shares = share_spans(spans, places, ["x y z"] * len(places))
    said = " ".join(share for share in shares if share).split()
    inside = [span.text for span in spans if places and span.start_s < edges[-1]]
    assert sorted(said) == sorted(inside)
    # Parts shown at the same time may change places: the shorter belongs to one place, the longer to the one after it.
    if all(a.end_s <= b.start_s for a, b in itertools.pairwise(spans)):
        assert said == inside


def words_of(text: str, p: float = 0.9) -> list[Word]:
    return [Word(word, 0.5 * i, 0.5 * i + 0.4, p) for i, word in enumerate(text.split())]


def test_words_get_the_times_of_what_was_heard() -> None:
    heard = words_of("good evening every one my name is Alison")
    timed = time_words("Good evening, everyone! My name is Allison.", heard, "en", 5.0)
    assert [word.word for word in timed] == ["Good", "evening,", "everyone!", "My", "name", "is", "Allison."]
    assert (timed[0].start, timed[0].end) == pytest.approx((0.0, 0.4), abs=1e-3)
    assert (timed[2].start, timed[2].end) == pytest.approx((1.0, 1.9), abs=1e-3)
    assert timed[-1].end == pytest.approx(3.9, abs=1e-3) and 0.6 < timed[-1].p < 0.9
    assert [w.word for w in time_words("你好，世界。", [Word("你好", 0, 1, 0.9), Word("世界", 1, 2, 0.9)], "zh", 2.0)] == [
        "你", "好，", "世", "界。"
    ]  # fmt: skip


@given(
    st.lists(st.sampled_from(["abc", "de", "fgh", "i"]), max_size=9),
    st.lists(st.sampled_from(["abc", "de", "fgh", "—", "j"]), max_size=9),
)
def test_times_of_given_words_rise_and_stay_inside(heard: list[str], text: list[str]) -> None:
    timed = time_words(" ".join(text), words_of(" ".join(heard)), "en", 3.0)
    assert [word.word for word in timed] == text
    times = [time for word in timed for time in (word.start, word.end)]
    assert times == sorted(times) and all(0 <= time <= 3.0 for time in times)
    assert all(0 <= word.p <= 1 for word in timed)


@given(st.text(max_size=40), st.sampled_from(["en", "zh", "th", None]))
def test_pieces_together_are_the_text(text: str, language: str | None) -> None:
    assert "".join(split_pieces(text, language)) == text.strip()


def supported(*unsaid: str, gain: float = 4.0) -> Callable[[str], list[WordSupport]]:
    """What the audio says where it holds every word but these."""
    return lambda text: [WordSupport(word, 0.0 if word.strip(".,;") in unsaid else gain, 1) for word in text.split()]


def test_a_transcript_that_is_heard_is_used_without_asking() -> None:
    match = judge(TEXT, TEXT.lower(), words_of(TEXT.lower()), "en", lambda text: pytest.fail("asked"))
    assert (match.text, match.source, match.flags) == (TEXT, "given", ())


def test_a_right_transcript_is_used_where_the_recogniser_is_weak() -> None:
    heard = "gut iwning ivri uan mai neim is elisn plis hold se lain"
    match = judge(TEXT, heard, words_of(heard, 0.4), "en", supported())
    assert match.cer > 0.3 and (match.text, match.source) == (TEXT, "given")
    wrong = judge(TEXT, heard, words_of(heard, 0.4), "en", supported(gain=0.3))
    assert (wrong.text, wrong.source, wrong.flags) == (heard, "asr", ("given_rejected",))


def test_words_at_an_end_are_trimmed_or_put_in() -> None:
    heard = TEXT.lower()
    longer = judge(f"{TEXT} Press nine.", heard, words_of(heard), "en", supported("Press", "nine"))
    assert (longer.text, longer.source, longer.flags) == (TEXT, "repaired", ("given_trimmed",))
    shorter = judge(TEXT.removesuffix(" hold the line."), heard, words_of(heard), "en", supported())
    assert comparable(shorter.text) == comparable(TEXT) and shorter.flags == ("given_completed",)
    assert judge("the line.", heard, words_of(heard), "en", supported()).source == "asr"
    # Words that were hardly heard do not change a person's words.
    unsure = judge(TEXT.removesuffix(" hold the line."), heard, words_of(heard, 0.2), "en", supported())
    assert unsure.source == "given"


def test_without_a_measure_the_error_rate_decides() -> None:
    near, far = "good evening everyone my name was Alison please hold the line", "see you tomorrow"
    assert judge(TEXT, near, words_of(near), "en", lambda text: None).source == "given"
    assert judge(TEXT, far, words_of(far), "en", lambda text: None, MatchRules()).source == "asr"
    assert judge(" ... ", near, words_of(near), "en", lambda text: None).text == near
    assert judge(TEXT, "", [], "en", lambda text: None).source == "asr"


def test_digits_are_not_taken_for_any_words() -> None:
    match = judge("Added.", "19", words_of("19"), "en", supported("Added"))
    assert match.source == "asr"
    assert judge("nineteen", "19", words_of("19"), "en", supported()).source == "given"
