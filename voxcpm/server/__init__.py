"""The speech server: HTTP without torch in one process, the engine in another."""
