"""Stored voices: uploaded with consent, or designed from a description; their files, their routes, their export."""
