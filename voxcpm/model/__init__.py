"""The model: TSLM, FSQ, RALM, LocEnc and LocDiT. No audio, no text, no files.

`voxcpm` and `voxcpm2` are the official package's module paths; what they name lives above this folder and is imported on first use.
"""
