"""Tables of a run, beside published figures."""
