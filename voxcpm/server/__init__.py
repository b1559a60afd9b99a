"""The speech server: an HTTP process without torch, and the engine in a process beside it."""
