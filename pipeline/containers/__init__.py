"""Recordings that are no files of their own: in WebDataset tars, zips, Parquet and `datasets` tables, and behind URLs.

Such a recording has a location instead of a path: an fsspec URL (`tar://a/b.flac::file:///data/shard.tar`,
`s3://bucket/x.wav`) or a row of a table (`rows:///data/part.parquet#row=12`). It is listed and hashed where it lies and
fetched into the session's spool when its turn comes, so that no more than the sessions at work are on the disk twice.
"""
