"""The speech server: HTTP and WebSocket in one process without torch, the engine in another."""
