"""What a run writes in addition to its units and reads again: journal, fingerprint, summary, retries."""
