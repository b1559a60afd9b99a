"""Consent: the sentence that a speaker reads, the check of the recording, and the record that is kept of it."""
