"""The model: TSLM, FSQ, RALM, LocEnc and LocDiT. No audio, no text, no files."""
