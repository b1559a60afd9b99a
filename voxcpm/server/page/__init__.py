"""The page of the server: static files that are a client of its public API."""
