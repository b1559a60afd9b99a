"""Texts for content-decoupled samples: how far two transcripts are apart in meaning and in emotion words."""
