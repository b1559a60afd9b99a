"""Near misses in answers: words that models write for values of the vocabularies. Forms are lower case with underscores."""

from __future__ import annotations

from typing import Final

VALUE_SYNONYMS: Final[dict[str, dict[str, str]]] = {
    "gender": {
        "man": "male", "woman": "female", "m": "male", "f": "female", "boy": "male", "girl": "female", "masculine": "male",
        "feminine": "female",
    },
    "age": {
        "kid": "child", "teenager": "teen", "teenage": "teen", "adolescent": "teen", "young_adult": "young", "adult": "unsure",
        "middle_aged": "middle", "elderly": "senior", "old": "senior", "elder": "senior",
    },
    "pitch": {"medium": "mid", "medium_low": "low", "medium_high": "high", "normal": "mid", "moderate": "mid", "deep": "low"},
    "rate": {"moderate": "normal", "medium": "normal", "mid": "normal", "very_quick": "very_fast", "quick": "fast"},
    "energy": {
        "whispered": "whisper", "whispering": "whisper", "quiet": "soft", "low": "soft", "moderate": "normal", "medium": "normal",
        "mid": "normal", "high": "loud", "shouted": "shouting", "shout": "shouting", "very_loud": "shouting",
    },
    "pitch_range": {
        "monotone": "flat", "narrow": "flat", "low": "flat", "medium": "moderate", "mid": "moderate", "normal": "moderate",
        "wide": "lively", "high": "lively", "expressive": "lively", "varied": "lively",
    },
    "emotion": {
        "happiness": "happy", "joy": "happy", "joyful": "happy", "cheerful": "happy", "sadness": "sad", "anger": "angry",
        "fear": "fearful", "scared": "fearful", "surprise": "surprised", "disgust": "disgusted", "contempt": "contemptuous",
        "amusement": "amused", "excitement": "excited", "anxious": "worried", "concerned": "worried", "calmness": "calm",
        "relaxed": "calm", "tenderness": "tender", "loving": "tender", "none": "neutral",
    },
    "strength": {"weak": "mild", "slight": "mild", "moderate": "clear", "medium": "clear", "high": "strong", "low": "mild"},
    "arousal": {"medium": "mid", "moderate": "mid", "neutral": "mid"},
    "valence": {"mixed": "neutral", "mid": "neutral"},
    "clarity": {"clear": "crisp", "mumbled": "slurred", "unclear": "slurred", "precise": "crisp", "moderate": "normal"},
}  # fmt: skip
"""By attribute: form -> value."""

LIST_SYNONYMS: Final[dict[str, dict[str, str]]] = {
    "texture": {
        "clean": "clear", "breath": "breathy", "whispery": "breathy", "gravelly": "raspy", "gruff": "raspy", "throaty": "husky",
        "croaky": "creaky", "vocal_fry": "creaky", "strained": "tense", "tight": "tense", "pressed": "tense", "rich": "full",
        "resonant": "full", "sonorous": "full", "weak": "thin", "shrill": "bright", "brilliant": "bright", "deep": "dark",
        "silky": "smooth", "velvety": "smooth", "mellow": "warm", "harsh": "rough", "coarse": "rough",
        "shaky": "trembling", "quivering": "trembling", "tremulous": "trembling", "light": "airy", "tinny": "metallic",
    },
    "delivery": {
        "casual": "conversational", "chatty": "conversational", "narrative": "narration", "narrating": "narration",
        "narrator": "narration", "read": "reading", "read_speech": "reading", "announcement": "announcing",
        "announcer": "announcing", "broadcast": "announcing", "newsreading": "announcing", "instructive": "instructing",
        "instructional": "instructing", "teaching": "instructing", "explaining": "instructing", "story_telling": "storytelling",
        "dramatic": "storytelling", "whisper": "whispering", "whispered": "whispering", "begging": "pleading",
        "imploring": "pleading", "ironic": "sarcastic", "mocking": "sarcastic", "tentative": "hesitant", "uncertain": "hesitant",
        "assertive": "confident", "assured": "confident", "official": "formal", "teasing": "playful", "authoritative":
        "commanding", "soothing": "comforting", "reassuring": "comforting", "crying": "crying_speech", "tearful": "crying_speech",
        "sobbing": "crying_speech", "laughing": "laughing_speech", "sing_song": "singing_like", "singing": "singing_like",
        "melodic": "singing_like",
    },
    "events": {
        "laugh": "laughing", "laughter": "laughing", "chuckle": "laughing", "giggle": "laughing", "sighing": "sigh",
        "um": "uhm", "uh": "uhm", "hesitation": "uhm", "hush": "shh",
    },
}  # fmt: skip
"""By list: form -> form of the value."""
