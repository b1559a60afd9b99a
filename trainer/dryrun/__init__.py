"""What a run would do and what is wrong with it, before anything is spent."""
