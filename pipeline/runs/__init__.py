"""What a run writes beside its units and reads again: journal, fingerprint, summary, retries."""
