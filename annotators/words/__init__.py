"""Attributes as words and back: lexicons, claims found in a text, captions rendered from attributes, repairs of one phrase."""
