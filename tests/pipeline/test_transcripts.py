"""Transcripts beside recordings: every format with and without times, and everything that may be wrong with one."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inputs.find import SourceError, find_sources
from pipeline.inputs.transcripts.beside import READERS, TranscriptFinder
from pipeline.inputs.transcripts.formats import TranscriptError, clean_caption, decode_text
from pipeline.inputs.transcripts.labels import read_labels
from pipeline.inputs.transcripts.objects import read_objects
from pipeline.inputs.transcripts.subtitles import read_subtitles
from pipeline.inputs.transcripts.textgrid import read_textgrid
from pipeline.records import TimedText

SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Good evening,</i>
everyone.

2
00:00:03,000 --> 00:01:04,250 X1:40 X2:600
- JOHN: My name is &quot;Allison&quot;.
- [laughs] ♪

3
01:00:05,000 --> 01:00:06,000
(door closes)
"""

VTT = """WEBVTT - a title
Kind: captions

STYLE
::cue { color: lime }

NOTE this is
a remark

intro
00:01.000 --> 00:02.500 align:start position:0%
<v Mary>Good <00:00:01.500><c>evening,</c>
everyone.

00:00:03.000 --> 00:01:04.250
My name is "Allison".
"""

WANTED = (TimedText(1.0, 2.5, "Good evening, everyone."), TimedText(3.0, 64.25, 'My name is "Allison".'))

LONG_GRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 4.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 4.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 4.5
            text = "HH"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 4.5
        points: size = 1
        points [1]:
            number = 1.5
            mark = "click"
    item [3]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 4.5
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 1.25
            text = "sil"
        intervals [2]:
            xmin = 1.25
            xmax = 2
            text = "say ""two"" 2"
        intervals [3]:
            xmin = 2
            xmax = 4.5
            text = "слова"
"""

SHORT_GRID = """File type = "ooTextFile"
Object class = "TextGrid"

0
4.5
<exists>
1
"IntervalTier"
"words"
0
4.5
3
0
1.25
""
1.25
2
"say ""two"" 2"
2
4.5
"слова"
"""

IN_GRID = (TimedText(1.25, 2.0, 'say "two" 2'), TimedText(2.0, 4.5, "слова"))


def test_subtitles_become_words_with_times() -> None:
    for text in (SRT, VTT, SRT.replace("\n\n2\n", "\n2\n"), SRT.replace(",000", ".000")):
        assert read_subtitles(text).spans == WANTED
    assert read_subtitles(SRT).text == 'Good evening, everyone. My name is "Allison".'


def test_rolling_captions_say_each_line_once() -> None:
    rolling = """WEBVTT

00:00:00.000 --> 00:00:02.000
one two

00:00:02.000 --> 00:00:04.000
one two
three four

00:00:04.000 --> 00:00:06.000
three four
five
"""
    assert read_subtitles(rolling).text == "one two three four five"
    # The same words said again later are said again.
    again = "1\n00:00:01,000 --> 00:00:02,000\nNo.\n\n2\n00:00:05,000 --> 00:00:06,000\nNo.\n"
    assert read_subtitles(again).text == "No. No."


def test_captions_are_cleaned_of_what_nobody_says() -> None:
    assert clean_caption("{\\an8}<b>>> DR. WHO:</b> It's 5:30 - isn't it?") == "It's 5:30 - isn't it?"
    assert clean_caption("[APPLAUSE] (sighs) # la la # 【音楽】はい") == "la la はい"


def test_a_textgrid_is_read_in_both_forms_and_encodings() -> None:
    for text in (LONG_GRID, SHORT_GRID):
        for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"):
            data = text.replace("\n", "\r\n").encode(encoding)
            assert read_textgrid(decode_text(data)).spans == IN_GRID


def test_each_speaker_of_a_textgrid_counts_and_utterances_come_before_words() -> None:
    def tier(name: str, *rows: tuple[float, float, str]) -> str:
        return f'"IntervalTier" "{name}" 0 9 {len(rows)} ' + " ".join(f'{a} {b} "{text}"' for a, b, text in rows)

    head = '"ooTextFile" "TextGrid" 0 9 <exists> '
    words = tier("Ann - words", (1, 2, "hello"), (4, 5, "again"))
    assert read_textgrid(f"{head} 2 {words} {tier('Bob - words', (2, 3, 'yes'))}").text == "hello yes again"
    assert read_textgrid(f"{head} 2 {words} {tier('utterances', (1, 3, 'Hello, yes.'))}").text == "Hello, yes."
    assert read_textgrid(f"{head} 1 {tier('Mary', (1, 3, 'Hm.'))}").text == "Hm."
    with pytest.raises(TranscriptError, match="no tier of it holds words"):
        read_textgrid(f"{head} 1 {tier('phones', (1, 3, 'h'))}")


def test_labels_in_every_unit() -> None:
    assert read_labels("0 5000000 sil\n5000000 12500000 hello -12.5\n12500000 20000000 there\n").spans == (
        TimedText(0.5, 1.25, "hello"),
        TimedText(1.25, 2.0, "there"),
    )
    assert read_labels("0.5\t1.25\thello there\n1.5\t2.0\tfriend").spans == (
        TimedText(0.5, 1.25, "hello there"),
        TimedText(1.5, 2.0, "friend"),
    )
    assert read_labels("signal x\n#\n 0.5 121 pau\n 1.25 121 hello\n").spans == (TimedText(0.5, 1.25, "hello"),)
    assert read_labels("hello there\nfriend").text == "hello there friend"
    assert read_labels("hello there").spans == ()


def test_labels_of_sounds_are_no_transcript() -> None:
    phones = "\n".join(
        f"{i * 800000} {(i + 1) * 800000} {p}" for i, p in enumerate(["hh", "ax", "l", "ow", "sil", "t"])
    )
    full_context = "0 3000000 x^x-sil+h=e@x_x\n3000000 4000000 x^sil-h+e=l@1_2"
    for text in (phones, full_context):
        with pytest.raises(TranscriptError, match="single sounds"):
            read_labels(text)


def test_what_recognisers_write_as_json() -> None:
    segments = [{"id": 0, "start": 1.0, "end": 2.5, "text": " Good evening, everyone."}]
    for value in (
        {"text": "all", "segments": segments},
        segments,
        {"chunks": [{"timestamp": [1, 2.5], "text": segments[0]["text"]}]},
    ):
        assert read_objects(json.dumps(value)).spans == WANTED[:1]
    lines = '{"offset": 1.0, "duration": 1.5, "text": "Good evening, everyone."}\n'
    assert read_objects(lines).spans == WANTED[:1]
    assert read_objects('{"id": "x", "text": "hello", "duration": 3}') == read_objects('{"transcript": "hello"}')
    assert read_objects('{"text": "hello there", "words": ["hello", "there"], "segments": []}').text == "hello there"


@pytest.mark.parametrize("ending", sorted(READERS))
@given(data=st.one_of(st.binary(max_size=300), st.text(max_size=200).map(str.encode)))
def test_whatever_a_file_holds_nothing_but_a_transcript_error_comes_of_it(ending: str, data: bytes) -> None:
    try:
        found = READERS[ending](decode_text(data))
    except (TranscriptError, UnicodeDecodeError):
        return
    assert found.text and all(0 <= span.start_s <= span.end_s for span in found.spans)


@given(st.integers(0, len(LONG_GRID)))
def test_a_textgrid_cut_off_anywhere_is_refused_or_read_whole(cut: int) -> None:
    with contextlib.suppress(TranscriptError):
        assert read_textgrid(LONG_GRID[:cut]).spans == IN_GRID


def put(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")


def test_the_best_transcript_beside_a_recording_counts(tmp_path: Path) -> None:
    put(tmp_path, a__wav="audio", a__txt="plain words", a__srt=SRT, b__wav="audio b", b__txt="plain words")
    (tmp_path / "c.WAV").write_text("audio c")
    (tmp_path / "c.WAV.TextGrid").write_text(SHORT_GRID, encoding="utf-16")
    sources = {source.relative_path: source for source in find_sources([str(tmp_path)]).sources}
    assert sources["a.wav"].spans == WANTED and sources["a.wav"].text == " ".join(span.text for span in WANTED)
    assert (sources["b.wav"].text, sources["b.wav"].spans) == ("plain words", ())
    assert sources["c.WAV"].spans == IN_GRID


def test_subtitles_in_another_language_are_a_translation(tmp_path: Path) -> None:
    put(tmp_path, talk__de__srt=SRT.replace("Good evening", "Guten Abend"), talk__en__srt=SRT, talk__wav="audio")
    find = TranscriptFinder().find
    assert str(find(tmp_path / "talk.wav", "en-US")[0]).count("Good evening") == 2
    assert str(find(tmp_path / "talk.wav", "de")[0]).count("Guten Abend") == 2
    assert find(tmp_path / "talk.wav", "fr") == (None, [])


def test_a_broken_transcript_is_said_and_the_next_one_taken(tmp_path: Path) -> None:
    put(
        tmp_path,
        a__wav="audio",
        a__TextGrid=LONG_GRID[:300],
        a__srt="no times here",
        a__json='{"fps": 25}',
        a__txt="words",
    )
    found = find_sources([str(tmp_path)])
    assert found.sources[0].text == "words" and not found.refused
    grid, srt = found.notices
    assert grid.endswith("a.TextGrid: this transcript was left out: it ends in the middle")
    assert "a.srt" in srt and "no line has a time" in srt
    (tmp_path / "a.txt").unlink()
    (tmp_path / "a.txt").mkdir()
    found = find_sources([str(tmp_path)])
    assert found.sources[0].text is None and "is a directory" in found.notices[-1]


def test_a_manifest_may_tell_times(tmp_path: Path) -> None:
    put(tmp_path, long__wav="audio", short__wav="audio 2")
    rows = [
        {"audio_filepath": "long.wav", "offset": 3.0, "duration": 61.25, "text": WANTED[1].text, "lang": "en"},
        {"audio_filepath": "short.wav", "duration": 1.0, "text": "words"},
        {"audio_filepath": "long.wav", "offset": 1.0, "duration": 1.5, "text": WANTED[0].text, "lang": "en"},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    long, short = find_sources([f"{tmp_path}/m.jsonl"]).sources
    assert (long.spans, long.language) == (WANTED, "en")
    assert (short.text, short.spans) == ("words", ())
    listed = {"path": "long.wav", "segments": [{"start": s.start_s, "end": s.end_s, "text": s.text} for s in WANTED]}
    (tmp_path / "m.jsonl").write_text(json.dumps(listed))
    assert find_sources([f"{tmp_path}/m.jsonl"]).sources[0].spans == WANTED
    (tmp_path / "m.jsonl").write_text('{"path": "long.wav", "start": 5, "end": 3, "text": "x"}')
    with pytest.raises(SourceError, match="row 1: the time 5 to 3 s is impossible"):
        find_sources([f"{tmp_path}/m.jsonl"])


def test_languages_of_a_manifest_are_codes_names_or_dialects(tmp_path: Path) -> None:
    named = {
        "es": "es",
        "pt-BR": "pt-BR",
        "Spanish": "es",
        "四川话": "zh-x-sichuan",
        "Wu": "wuu",
        "yue": "yue",
        "cy": "cy",
    }
    for index in range(len(named) + 1):
        (tmp_path / f"{index}.wav").write_text(f"audio {index}")
    rows = [{"path": f"{i}.wav", "language": name} for i, name in enumerate([*named, "no language"])]
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    found = find_sources([f"{tmp_path}/m.jsonl"])
    assert [source.language for source in found.sources] == [*named.values(), None]
    (notice,) = found.notices
    assert "'no language' is not a language that is known here" in notice


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", "one|Good evening, " + 'everyone.|x\ntwo|He said "no.|x\n'),
        ("metadata.csv", 'file_name,text\nwavs/one.wav,"Good evening, everyone."\nwavs/two.wav,"He said ""no."\n'),
        ("metadata.tsv", 'path\tsentence\nwavs/one.wav\tGood evening, everyone.\nwavs/two.wav\tHe said "no.\n'),
        (
            "metadata.jsonl",
            '{"file_name": "wavs/one.wav", "text": "Good evening, everyone."}\n'
            '{"file_name": "wavs/two.wav", "text": "He said \\"no."}\n',
        ),
        ("wavs/84-1.trans.txt", 'one Good evening, everyone.\ntwo He said "no.\n'),
    ],
)
def test_a_list_may_hold_the_transcripts_of_a_folder(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "wavs").mkdir()
    put(tmp_path / "wavs", one__wav="audio", two__wav="audio 2", three__wav="audio 3", three__txt="its own")
    (tmp_path / name).write_text(text, encoding="utf-8")
    sources = {Path(source.path).stem: source.text for source in find_sources([str(tmp_path)]).sources}
    assert sources == {"one": "Good evening, everyone.", "two": 'He said "no.', "three": "its own"}


def test_metadata_of_other_things_is_no_transcript(tmp_path: Path) -> None:
    put(tmp_path, a__wav="audio")
    (tmp_path / "metadata.csv").write_text("camera,lens\nx,y\n")
    (tmp_path / "metadata.jsonl").write_text("{broken")
    found = find_sources([str(tmp_path)])
    assert found.sources[0].text is None and len(found.notices) == 1
    assert "metadata.jsonl: this list of transcripts was left out" in found.notices[0]
