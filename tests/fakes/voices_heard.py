"""What a fake describer hears: measured from the audio, or given; and full answers about it, true or with planted contradictions.

truth = measure(pcm)
answer_for(truth)                                     # the fields of one clip, true
answer_for(truth, lies={"gender": "female"}, places="prose")   # the JSON is right, the captions are not
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import soundfile

RATE = 16_000
Places = Literal["json", "prose", "both"]
"""Where a lie stands: in the closed attributes, in the captions, or in both."""


@dataclass(frozen=True)
class Truth:
    """What is true of a clip. Attributes that are not given are unsure."""

    seconds: float
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Names and values of catalogs.vocabulary.voices.CLOSED."""
    texture: tuple[str, ...] = ("clear",)
    delivery: tuple[str, ...] = ("conversational",)
    seed: str = ""
    """Chooses among equal wordings."""

    def get(self, name: str) -> str:
        return self.attributes.get(name, "unsure")


def decode(audio: bytes) -> np.ndarray:
    """Return a FLAC or WAV file as `[S] int16`; it has to have 16 kHz and one channel, as the design says."""
    samples, rate = soundfile.read(io.BytesIO(audio), dtype="int16")
    assert rate == RATE and samples.ndim == 1, f"{rate} Hz, shape {samples.shape}"
    return samples


def pcm_hash(pcm: np.ndarray) -> str:
    """Return the sha256 of samples: FLAC and WAV of the same clip have the same."""
    return hashlib.sha256(np.ascontiguousarray(pcm).tobytes()).hexdigest()


def measure(pcm: np.ndarray) -> Truth:
    """Return what can be measured simply: duration, level, pitch by autocorrelation, and from it the gender."""
    samples = pcm.astype(np.float32) / 32768.0
    attributes: dict[str, str] = {}
    level = 20 * np.log10(max(1e-6, float(np.sqrt(np.mean(samples**2))))) if len(samples) else -120.0
    attributes["energy"] = "soft" if level < -32 else "loud" if level > -14 else "normal"
    pitches = _pitches(samples)
    if len(pitches):
        pitch = float(np.median(pitches))
        gender = "male" if pitch < 160 else "female"
        low, high = (105.0, 140.0) if gender == "male" else (185.0, 235.0)
        spread = 12 * np.log2(np.percentile(pitches, 90) / np.percentile(pitches, 10))
        attributes |= {
            "gender": gender,
            "pitch": "low" if pitch < low else "high" if pitch > high else "mid",
            "pitch_range": "flat" if spread < 3 else "lively" if spread > 9 else "moderate",
        }
    return Truth(len(pcm) / RATE, attributes, seed=pcm_hash(pcm))


def _pitches(samples: np.ndarray, most_frames: int = 24) -> np.ndarray:
    """Return the pitch of voiced frames in Hz."""
    size = 1024
    starts = np.linspace(0, max(0, len(samples) - size), most_frames).astype(int)
    found = []
    for frame in (samples[start : start + size] for start in starts):
        if len(frame) < size or float(np.abs(frame).max()) < 0.01:
            continue
        frame = frame - frame.mean()
        spectrum = np.fft.rfft(frame, 2 * size)
        correlation = np.fft.irfft(np.abs(spectrum) ** 2)[:size]
        lags = slice(RATE // 400, RATE // 60)
        lag = int(np.argmax(correlation[lags])) + lags.start
        if correlation[lag] > 0.4 * correlation[0]:
            found.append(RATE / lag)
    return np.array(found)


def answer_for(
    truth: Truth,
    languages: Sequence[str] = ("en", "zh"),
    lies: Mapping[str, str] | None = None,
    places: Places = "both",
) -> dict[str, Any]:
    """Return the fields of an answer about one clip, by their names on the wire, without its label.

    lies: attribute -> a value that contradicts the truth; places: where it stands.
    """
    lied = replace(truth, attributes={**truth.attributes, **(lies or {})})
    stated = lied if places in ("json", "both") else truth
    told = lied if places in ("prose", "both") else truth
    closed = (
        "gender", "age", "pitch", "rate", "energy", "pitch_range", "emotion", "strength", "arousal", "valence", "clarity",
    )  # fmt: skip
    answer: dict[str, Any] = {"sec": round(truth.seconds, 1), "heard": _heard(stated)}
    answer |= {"melody" if name == "pitch_range" else name: stated.get(name) for name in closed}
    answer |= {
        "accent": "unsure", "texture": list(truth.texture), "delivery": list(truth.delivery), "events": [], "stressed": [],
        "scenario": "a quiet talk between friends",
    }  # fmt: skip
    for language in languages:
        answer[language] = captions_in(told, language)
    return answer


def captions_in(truth: Truth, language: str) -> dict[str, str]:
    """Return the captions of four registers, in English, Chinese, or with "own" in Polish as a language that is neither."""
    if language == "own":
        return {"lang": "pl", **dict.fromkeys(("brief", "style", "full", "persona"), "Spokojny, wyraźny głos")}
    return _chinese(truth) if language == "zh" else _english(truth)


def _pick(truth: Truth, what: str, choices: Sequence[str]) -> str:
    digest = hashlib.sha256(f"{what}{truth.seed}".encode()).digest()
    return choices[digest[0] % len(choices)]


def _heard(truth: Truth) -> str:
    return f"pitch {truth.get('pitch')}, force {truth.get('energy')}, melody {truth.get('pitch_range')}".replace(
        "_", " "
    )


_NOUN = {
    ("child", "male"): "little boy", ("child", "female"): "little girl", ("child", "unsure"): "child",
    ("teen", "male"): "teenage boy", ("teen", "female"): "teenage girl", ("teen", "unsure"): "teenager",
    ("young", "male"): "young man", ("young", "female"): "young woman", ("young", "unsure"): "young speaker",
    ("middle", "male"): "middle-aged man", ("middle", "female"): "middle-aged woman", ("middle", "unsure"): "middle-aged speaker",
    ("senior", "male"): "elderly man", ("senior", "female"): "elderly woman", ("senior", "unsure"): "elderly speaker",
    ("unsure", "male"): "man", ("unsure", "female"): "woman", ("unsure", "unsure"): "speaker",
}  # fmt: skip
_NOUN_ZH = {
    ("child", "male"): "小男孩", ("child", "female"): "小女孩", ("child", "unsure"): "孩子", ("teen", "male"): "少年",
    ("teen", "female"): "少女", ("teen", "unsure"): "青少年", ("young", "male"): "年轻男性", ("young", "female"): "年轻女性",
    ("young", "unsure"): "年轻人", ("middle", "male"): "中年男性", ("middle", "female"): "中年女性",
    ("middle", "unsure"): "中年人",
    ("senior", "male"): "老年男性", ("senior", "female"): "老年女性", ("senior", "unsure"): "老年人",
    ("unsure", "male"): "男性", ("unsure", "female"): "女性", ("unsure", "unsure"): "说话人",
}  # fmt: skip
_EN = {
    "pitch": {
        "very_low": "very deep", "low": "deep", "mid": "mid-pitched", "high": "high-pitched", "very_high": "very high-pitched",
    },
    "rate": {
        "very_slow": "very slowly", "slow": "slowly", "normal": "at a normal pace", "fast": "quickly", "very_fast": "very quickly",
    },
    "energy": {
        "whisper": "in a whisper", "soft": "softly", "normal": "at a normal volume", "loud": "loudly", "shouting": "in a shout",
    },
    "pitch_range": {"flat": "with flat intonation", "moderate": "with moderate intonation", "lively": "with lively intonation"},
}  # fmt: skip
_ZH = {
    "pitch": {"very_low": "非常低沉", "low": "低沉", "mid": "音调适中", "high": "高亢", "very_high": "非常高亢"},
    "rate": {"very_slow": "语速很慢", "slow": "语速缓慢", "normal": "语速适中", "fast": "语速较快", "very_fast": "语速很快"},
    "energy": {"whisper": "轻声耳语", "soft": "音量轻柔", "normal": "音量适中", "loud": "音量较大", "shouting": "大声喊叫"},
    "pitch_range": {"flat": "语调平直", "moderate": "语调自然", "lively": "语调起伏明显"},
    "emotion": {
        "neutral": "情绪平稳", "happy": "语气开心", "sad": "语气悲伤", "angry": "语气愤怒", "fearful": "语气恐惧",
        "surprised": "语气惊讶", "disgusted": "语气厌恶", "calm": "语气平静", "tender": "语气温柔", "excited": "语气兴奋",
        "amused": "语气带笑", "contemptuous": "语气轻蔑", "worried": "语气担忧", "tired": "语气疲惫",
    },
}  # fmt: skip


def _english(truth: Truth) -> dict[str, str]:
    noun = _NOUN[truth.get("age"), truth.get("gender")]
    pitch = _EN["pitch"].get(truth.get("pitch"), "")
    manner = [_EN[name][truth.get(name)] for name in ("rate", "energy", "pitch_range") if truth.get(name) in _EN[name]]
    emotion = "" if truth.get("emotion") == "unsure" else truth.get("emotion")
    how = ", ".join(manner[:-1]) + (" and " if len(manner) > 1 else "") + manner[-1] if manner else "plainly"
    voice = f"{' '.join(filter(None, [_pick(truth, 'texture', truth.texture or ('plain',)), pitch]))} voice"
    person, mood = _article(noun), f"a {emotion} mood" if emotion else "an open mood"
    full = _pick(
        truth,
        "full",
        (
            f"{person.capitalize()} with {_article(voice)} speaks {how}, in {mood}.",
            f"In {mood}, {person} speaks {how}. The {voice} carries easily.",
            f"Speaking {how}, {person} with {_article(voice)} keeps to {mood}.",
            f"{_article(voice).capitalize()}, that of {person}: it speaks {how}, in {mood}.",
        ),
    )
    role = _pick(
        truth, "role", ("talking to an old friend", "explaining a plan", "on the telephone", "at a kitchen table")
    )
    return {
        "brief": f"{', '.join(filter(None, [emotion, pitch]))} {noun}".strip().capitalize(),
        "style": f"{emotion.capitalize() + ', spoken' if emotion else 'Spoken'} {how}",
        "full": full,
        "persona": f"{person.capitalize()} {role}, speaking {how}",
    }


def _chinese(truth: Truth) -> dict[str, str]:
    noun = _NOUN_ZH[truth.get("age"), truth.get("gender")]
    pitch = _ZH["pitch"].get(truth.get("pitch"), "")
    names = ("rate", "energy", "pitch_range", "emotion")
    manner = "，".join(_ZH[name][truth.get(name)] for name in names if truth.get(name) in _ZH[name]) or "说话自然"
    voice = f"嗓音{pitch}" if pitch else "嗓音自然"
    role = _pick(truth, "role zh", ("与老友闲聊", "讲解计划", "打电话", "在餐桌旁聊天"))
    full = _pick(
        truth,
        "full zh",
        (f"一位{noun}，{voice}，{manner}。", f"{manner}，是一位{noun}，{voice}。", f"{voice}的{noun}，{manner}。"),
    )
    return {
        "brief": f"{pitch}{'的' if pitch else ''}{noun}声音",
        "style": manner,
        "full": full,
        "persona": f"一位{role}的{noun}，{manner}",
    }


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
