"""Transcripts that lie beside recordings: subtitles, label files, TextGrids, JSON and plain text."""
