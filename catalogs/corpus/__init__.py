"""The corpus format: schema, ids, shards, commits, reading, locks, fsck and repair."""
