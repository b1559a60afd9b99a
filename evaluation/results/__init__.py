"""Results of a run: figures read from its rows, estimates with intervals, and published figures to put beside them."""
