-- The catalog's views. views.py fills in the sources (row_sources.py) and the thresholds as SQL.

-- The folder of this catalog, with a slash at its end; empty: the working directory. See docs/corpus.md.
CREATE MACRO corpus_folder() AS $folder;

CREATE VIEW recordings AS
SELECT $columns_recordings FROM $files_recordings;

-- Every mark that people made. `undone` ones and those that a later one of the same person replaces do not count.
CREATE VIEW marks AS
SELECT $columns_marks, undone, counts FROM $files_marks;

CREATE VIEW segments AS
SELECT $columns_segments, path, human, uncorrected_text, $columns_rights
FROM (
    SELECT * EXCLUDE (duplicate_of, duplicate_kind, duplicate_group)
        REPLACE (map_from_entries(extra) AS extra)
    FROM $files_index
)
-- Grouped, so that a segment stays one row and DuckDB skips the joins for queries that do not select their columns.
LEFT JOIN (
    SELECT segment_id, any_value(duplicate_of) AS duplicate_of, any_value(duplicate_kind) AS duplicate_kind,
        any_value(duplicate_group) AS duplicate_group
    FROM $files_duplicates GROUP BY segment_id
) USING (segment_id)
LEFT JOIN (SELECT source_id, any_value(path) AS path, $any_rights FROM $files_recordings GROUP BY source_id) USING (source_id);

CREATE VIEW reference_pairs AS
SELECT $columns_references FROM $files_references;

-- Rows of segments that were replaced (--redo, retry) stay on the disk but are left out.
CREATE VIEW descriptions AS
SELECT $columns_descriptions FROM $files_descriptions;

CREATE VIEW checks AS
SELECT $columns_checks FROM $files_checks;

CREATE VIEW decoupled AS
SELECT $columns_decoupled FROM $files_decoupled;

-- A row that was written at once (quarantine/now) and again with its unit counts once. A row from before the column `cause` gets
-- its cause from its error. Failed sources whose path now holds another file are left out.
CREATE VIEW quarantine AS
SELECT $columns_quarantine
FROM (SELECT * REPLACE ($cause AS cause) FROM $files_quarantine)
WHERE NOT list_contains($replaced, coalesce(source_id, ''))
QUALIFY row_number() OVER (PARTITION BY source_id, path, stage, error ORDER BY "at") = 1;

CREATE VIEW units AS
SELECT
    unit_id,
    CAST(len(session_ids) AS INTEGER) AS sessions,
    segments,
    seconds,
    fingerprint,
    "at"
FROM $files_records;

-- Busy seconds of every stage, added over units and actors.
CREATE VIEW stages AS
SELECT busy.key AS stage, sum(busy.value) AS busy_s, count(*) AS units
FROM (SELECT unnest(map_entries(busy_s)) AS busy FROM $files_records)
GROUP BY ALL;

-- Where every recorded second went: the rows' seconds add up to the recordings' duration. A rejected segment counts once,
-- under its first reason; `segments_any` and `seconds_any` count it under each of its reasons.
CREATE VIEW funnel AS
-- The segments are read once, for these sums: to group them by recording would take twice as long.
WITH quarantined AS (SELECT DISTINCT source_id, true AS is_quarantined FROM recordings WHERE status = 'quarantined'),
sums AS MATERIALIZED (
    SELECT coalesce(is_quarantined, false) AS is_quarantined, kept, reasons, count(*) AS segments, sum(duration_s) AS seconds
    FROM segments LEFT JOIN quarantined USING (source_id) GROUP BY ALL
),
accounts AS (
    SELECT is_quarantined, duration_s, silence_s, coalesce(spoken_s, 0) AS spoken_s
    FROM (
        SELECT status = 'quarantined' AS is_quarantined, sum(duration_s) AS duration_s, sum(coalesce(silence_s, 0)) AS silence_s
        FROM recordings GROUP BY ALL
    ) LEFT JOIN (SELECT is_quarantined, sum(seconds) AS spoken_s FROM sums GROUP BY ALL) USING (is_quarantined)
),
by_first AS (
    SELECT reasons[1] AS reason, sum(segments) AS segments, sum(seconds) AS seconds
    FROM sums WHERE NOT kept GROUP BY ALL
),
by_any AS (
    SELECT reason, sum(segments) AS segments, sum(seconds) AS seconds
    FROM (SELECT unnest(reasons) AS reason, segments, seconds FROM sums WHERE NOT kept) GROUP BY ALL
),
parts AS (
    SELECT 1 AS step, 'quarantined' AS outcome, 'quarantined' AS reason, 0 AS segments,
        duration_s - spoken_s AS seconds, 0 AS segments_any, duration_s - spoken_s AS seconds_any
    FROM accounts WHERE is_quarantined
    UNION ALL
    SELECT 2, 'silence', 'silence', 0, silence_s, 0, silence_s FROM accounts WHERE NOT is_quarantined
    UNION ALL
    SELECT 3, 'rejected', by_any.reason, coalesce(by_first.segments, 0), coalesce(by_first.seconds, 0),
        by_any.segments, by_any.seconds
    FROM by_any LEFT JOIN by_first USING (reason)
    UNION ALL
    SELECT 4, 'kept', 'kept', sum(segments), sum(seconds), sum(segments), sum(seconds)
    FROM sums WHERE kept HAVING count(*) > 0
    UNION ALL
    SELECT 5, 'unaccounted', 'unaccounted', 0, duration_s - silence_s - spoken_s, 0, duration_s - silence_s - spoken_s
    FROM accounts WHERE NOT is_quarantined AND abs(duration_s - silence_s - spoken_s) > 0.001
)
SELECT
    outcome,
    reason,
    CAST(segments AS BIGINT) AS segments,
    CAST(seconds AS DOUBLE) AS seconds,
    CAST(segments_any AS BIGINT) AS segments_any,
    CAST(seconds_any AS DOUBLE) AS seconds_any,
    CAST(seconds / nullif(sum(seconds) OVER (), 0) AS DOUBLE) AS share
FROM parts
ORDER BY step, seconds DESC, reason;

CREATE VIEW catalog_info AS
SELECT $state AS state, $version AS schema_version;

$macros

$comments
