"""The figures of a run that are shown where there is room for a few: by the command, and in a model's card."""

HEADLINES = (
    "words_clean.wer",
    "words_clean.cer",
    "words_clean.wer_excess",
    "voice_ge2e.cosine",
    "distillmos.distillmos",
    "speed.rtf",
)
