"""The model: TSLM, FSQ, RALM, LocEnc and LocDiT. No audio, no text, no files.

`voxcpm` and `voxcpm2` are module paths of the official package. The classes they name are defined outside this folder and
imported on first use.
"""
