"""Speech recognition and utterance bounds: Whisper, language detection, cuts, clip lengths."""
