"""What a card says to every reader: what the thing is for, what it is not for, and what nobody can promise."""

from __future__ import annotations

INTENDED_DATA = (
    "Training and evaluation of text-to-speech models, within what the licenses and the stated purposes allow.",
)
INTENDED_MODEL = (
    "Speech from text, in voices that their owners agree to, and said to be synthetic where it is heard.",
)
OUT_OF_SCOPE = (
    "Imitating a person without their agreement, deceiving listeners, and fraud.",
    "Finding out who a speaker is, and any other identification of people by their voice.",
    "Decisions about people by measured traits such as gender, age or emotion: these are estimates by machines.",
)
LICENSES_AS_STATED = (
    "Licenses are what the sources state: voxmill checks their spelling, not their truth. Nothing here is legal advice."
)
FORGETTING = (
    "Forgetting removes data, and names the checkpoints that were trained on it. It does not make trained weights forget, "
    "and it does not stop the cloning of that voice from a clip."
)
CONSENT = (
    "A stated consent is a statement of the data's owner. A check of a voice with offline models identifies nobody."
)
MEASURED = (
    "Texts, languages, genders and scores are mostly estimates by machines, which are wrong more often for rare languages and "
    "voices."
)
MARK_REMOVABLE = (
    "Speech is marked by code that anybody can leave out: the mark helps the honest and catches the careless."
)
PUBLIC_KEY = (
    "The public key of the watermark can be forged and removed by anybody who reads the source. Only a private key says who "
    "marked it."
)
NOT_FOUND = (
    "Speech without a mark may be synthetic: short clips, music, noise, low bit rates and neural codecs can remove it, and a "
    "manifest is gone when a file is saved again."
)
OTHER_CLONES = "The detector finds marks of voxmill only. It does not detect the speech of other systems."

DATA_LIMITS = (LICENSES_AS_STATED, CONSENT, MEASURED, FORGETTING)
MODEL_LIMITS = (MARK_REMOVABLE, NOT_FOUND, OTHER_CLONES, LICENSES_AS_STATED, FORGETTING)


def watermark_words(key: str) -> tuple[str, ...]:
    """Return what a card says of the watermark. key: `public`, `none`, or the id of a private key."""
    if key == "none":
        return ("No watermark: speech of this model is published without one.",)
    if key == "public":
        return (
            "Watermark key: the public key of voxmill, which `voxmill speak` and the server use by default.",
            PUBLIC_KEY,
        )
    return (f"Watermark key: `{key}`. Its holder can tell whether speech has this mark.",)
