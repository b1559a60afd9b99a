"""Compaction: the small files of many units and passes gathered into a few large ones, for queries.

    compact/<number>/manifest.json              blocks, their files with sizes and sha256; `catalogs.compaction.generation`
    compact/<number>/units/<block>.parquet      commit records as rows, of the units that the block holds
    compact/<number>/index/<block>.parquet      their rows, with a column `unit`; recordings, references, quarantine likewise
    compact/<number>/members/<block>.parquet    the annotation files that a block holds: path, size, time
    compact/<number>/descriptions/<block>...    their rows, with `file` and `unit`; checks, decoupled likewise
    compact/<number>/gone_*/...                 rows that newer attempts replace: only if there are any

A generation is complete by itself: files that did not change are hard links to those of the one before. It is made below tmp/ and
renamed, so that readers see all of it or nothing. Units and annotations stay the truth; deleting compact/ loses nothing.
"""
