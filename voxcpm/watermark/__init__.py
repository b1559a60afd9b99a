"""A watermark in the sound: a keyed pattern of small level changes with 16 bits of payload. Needs numpy and soxr, no weights.

`SpeechMark` and `mark` embed it, `detect`, `detect_blocks` and `Detector` find it. docs/watermark.md says what it survives.
"""

from voxcpm.watermark.code import payload_of
from voxcpm.watermark.detect import Detection, Detector, detect, detect_blocks
from voxcpm.watermark.embed import SpeechMark, mark
from voxcpm.watermark.keys import PUBLIC_KEY, Key, WatermarkKeyError, new_key, read_key

__all__ = [
    "PUBLIC_KEY",
    "Detection",
    "Detector",
    "Key",
    "SpeechMark",
    "WatermarkKeyError",
    "detect",
    "detect_blocks",
    "mark",
    "new_key",
    "payload_of",
    "read_key",
]
