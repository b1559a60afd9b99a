"""Cards: README.md with the head that the Hub reads, croissant.json and ATTRIBUTION.md, of corpora, exports and models."""
