"""Closed vocabularies of voices and styles: what a description may say, and what of it measurements can check."""

from __future__ import annotations

from typing import Final

UNSURE: Final = "unsure"
"""A value of every closed attribute: two listeners could differ."""

GENDERS = ("male", "female")
AGES = ("child", "teen", "young", "middle", "senior")
"""From the youngest to the oldest; experts are right to one step at best."""
PITCHES = ("very_low", "low", "mid", "high", "very_high", "varied")
RATES = ("very_slow", "slow", "normal", "fast", "very_fast", "varied")
ENERGIES = ("whisper", "soft", "normal", "loud", "shouting", "varied")
PITCH_RANGES = ("flat", "moderate", "lively")
EMOTIONS = (
    "neutral", "happy", "sad", "angry", "fearful", "surprised", "disgusted", "calm", "tender", "excited", "amused",
    "contemptuous", "worried", "tired",
)  # fmt: skip
STRENGTHS = ("none", "mild", "clear", "strong")
"""How strongly the emotion is heard."""
AROUSALS = ("low", "mid", "high")
VALENCES = ("negative", "neutral", "positive")
CLARITIES = ("slurred", "normal", "crisp")
TEXTURES = (
    "clear", "breathy", "hoarse", "raspy", "husky", "nasal", "creaky", "tense", "thin", "full", "bright", "dark", "smooth",
    "rough", "trembling", "airy", "warm", "metallic",
)  # fmt: skip
DELIVERIES = (
    "conversational", "narration", "reading", "announcing", "instructing", "storytelling", "whispering", "pleading",
    "sarcastic", "hesitant", "confident", "formal", "playful", "commanding", "comforting", "crying_speech",
    "laughing_speech", "singing_like",
)  # fmt: skip
EVENTS = (
    "laughing", "sigh", "Uhm", "Shh", "Question-ah", "Question-ei", "Question-en", "Question-oh", "Surprise-wa",
    "Surprise-yo", "Dissatisfaction-hnn",
)  # fmt: skip
"""Sounds beside the words, by the names that VoxCPM2 reads in square brackets."""

CLOSED: Final[dict[str, tuple[str, ...]]] = {
    "gender": GENDERS,
    "age": AGES,
    "pitch": PITCHES,
    "rate": RATES,
    "energy": ENERGIES,
    "pitch_range": PITCH_RANGES,
    "emotion": EMOTIONS,
    "strength": STRENGTHS,
    "arousal": AROUSALS,
    "valence": VALENCES,
    "clarity": CLARITIES,
}
"""Attributes of one value each; each may also be UNSURE."""
LISTS: Final[dict[str, tuple[tuple[str, ...], int]]] = {
    "texture": (TEXTURES, 3),
    "delivery": (DELIVERIES, 2),
    "events": (EVENTS, len(EVENTS)),
}
"""Attributes of several values: their vocabulary and how many values a description may give."""

IDENTITY = ("gender", "age", "pitch", "texture", "accent")
"""Attributes of the voice. The others are of the delivery: only they may be in a caption of the register `style`."""

THREE: Final[dict[str, dict[str, str]]] = {
    "pitch": {"very_low": "low", "low": "low", "mid": "mid", "high": "high", "very_high": "high"},
    "rate": {"very_slow": "slow", "slow": "slow", "normal": "normal", "fast": "fast", "very_fast": "fast"},
    "energy": {"whisper": "soft", "soft": "soft", "normal": "normal", "loud": "loud", "shouting": "loud"},
}
"""Five levels as three, in which measurements are compared; `varied` has none."""

QUADRANTS: Final[dict[str, tuple[str, str]]] = {
    "neutral": ("mid", "neutral"),
    "happy": ("high", "positive"),
    "sad": ("low", "negative"),
    "angry": ("high", "negative"),
    "fearful": ("high", "negative"),
    "surprised": ("high", "neutral"),
    "disgusted": ("mid", "negative"),
    "calm": ("low", "positive"),
    "tender": ("low", "positive"),
    "excited": ("high", "positive"),
    "amused": ("high", "positive"),
    "contemptuous": ("mid", "negative"),
    "worried": ("mid", "negative"),
    "tired": ("low", "negative"),
}
"""(arousal, valence) of each emotion: what an expert can check in any language."""

REGISTERS = ("brief", "style", "full", "persona")
"""Kinds of captions: tags of at most 8 words; delivery only, without identity; all traits in one or two sentences; a role and its
situation."""
CAPTION_LANGUAGES = ("en", "zh")
"""Languages in which VoxCPM2 takes descriptions. A caption in another language is an extra."""

ACCENTS: Final[dict[str, tuple[str, ...]]] = {
    "en": ("american", "southern american", "british", "scottish", "irish", "welsh", "australian", "new zealand",
           "canadian", "indian", "south african", "nigerian", "singaporean", "jamaican", "filipino"),
    "zh": ("mandarin", "beijing", "northeastern", "sichuan", "cantonese", "shanghainese", "hokkien", "taiwanese", "hakka",
           "henan", "shaanxi", "shandong", "tianjin", "hunan", "wu"),
    "es": ("castilian", "andalusian", "mexican", "argentine", "colombian", "chilean", "peruvian", "caribbean"),
    "fr": ("parisian", "southern french", "belgian", "swiss", "canadian", "african"),
    "de": ("standard german", "bavarian", "austrian", "swiss", "swabian", "saxon", "northern german"),
    "pt": ("brazilian", "european portuguese", "angolan"),
    "ar": ("egyptian", "levantine", "gulf", "maghrebi", "iraqi"),
    "it": ("standard italian", "tuscan", "neapolitan", "sicilian", "northern italian"),
    "ja": ("tokyo", "kansai"),
    "ko": ("seoul", "gyeongsang", "jeolla"),
    "ru": ("standard russian", "southern russian"),
    "hi": ("standard hindi", "bhojpuri"),
    "nl": ("dutch", "flemish"),
}  # fmt: skip
"""Accents and dialects that a description may name, by the language that is spoken. A foreign accent is named by the speaker's
first language, e.g. "german"."""
