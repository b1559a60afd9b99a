"""POST /v1/audio/speech: its fields, what they ask of the engine, and its three kinds of answers."""
