"""Exchange: a corpus as the files that other tools read, and the files of other tools as a corpus."""
