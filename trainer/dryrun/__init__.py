"""The plan of a run and the checks of its settings and data, before any compute is spent."""
