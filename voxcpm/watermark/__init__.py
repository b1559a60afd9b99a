"""A watermark in the sound: a keyed pattern of small level changes with 16 bits of payload. Needs numpy and soxr, no weights.

`SpeechMark` and `mark` embed it, `detect`, `detect_blocks` and `Detector` find it. docs/watermark.md says what it survives.
"""

from voxcpm.watermark.code import payload_of
from voxcpm.watermark.detect import Detection, Detector, detect, detect_blocks
from voxcpm.watermark.embed import SpeechMark, mark
from voxcpm.watermark.keys import PUBLIC_KEY, Key, WatermarkKeyError, new_key, read_key
from voxcpm.watermark.speech import METHOD, checkpoint_payload, embedding_keys, speech_mark

__all__ = [
    "METHOD",
    "PUBLIC_KEY",
    "Detection",
    "Detector",
    "Key",
    "SpeechMark",
    "WatermarkKeyError",
    "checkpoint_payload",
    "detect",
    "detect_blocks",
    "embedding_keys",
    "mark",
    "new_key",
    "payload_of",
    "read_key",
    "speech_mark",
]
