"""From arguments to sources: files, tars, zips, tables, stores, manifests and their transcripts."""
