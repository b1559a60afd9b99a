"""Who says what a voice sounds like: describers, experts that check them, and the pass over a corpus that runs them."""
