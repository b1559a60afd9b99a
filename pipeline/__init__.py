"""Recordings in, corpus out: sources, stages, the engine that runs them, and the run itself."""
