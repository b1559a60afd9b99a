"""WS /v1/audio/speech/stream: text arrives in pieces, audio leaves as it is made."""
