"""The model: TSLM, FSQ, RALM, LocEnc and LocDiT. No audio, no text, no files.

`voxcpm`, `voxcpm2` and `utils` are module paths of the official package; `official` has the parts with its constructors.
"""

from __future__ import annotations

from voxcpm.lazy import exported

__getattr__ = exported(__name__, {"VoxCPMModel": "voxcpm.model.voxcpm", "VoxCPM2Model": "voxcpm.inference.speaker"})
