-- Table macros for questions about a corpus: FROM hours('speaker'). Every parameter has a default. The text of a parameter chooses
-- columns by CASE: DuckDB folds it and reads the chosen columns only. question_columns.py says what the columns mean.

CREATE MACRO hours(field := 'language') AS TABLE
SELECT value, count(*) AS segments, sum(duration_s) / 3600 AS hours, count(*) FILTER (kept) AS kept_segments,
    coalesce(sum(duration_s) FILTER (kept), 0) / 3600 AS kept_hours,
    kept_hours / nullif(sum(kept_hours) OVER (), 0) AS share
FROM (SELECT $field AS value, duration_s, kept FROM segments) GROUP BY value ORDER BY kept_hours DESC, hours DESC, value;

CREATE MACRO losses(field := 'language') AS TABLE
SELECT value, reason, sum(clips) AS segments, sum(seconds) / 3600 AS hours,
    sum(seconds) / nullif(sum(sum(seconds)) OVER (PARTITION BY value), 0) AS share
FROM (
    SELECT $field AS value, CASE WHEN kept THEN 'kept' ELSE reasons[1] END AS reason, count(*) AS clips,
        sum(duration_s) AS seconds
    FROM segments GROUP BY ALL
) GROUP BY value, reason ORDER BY sum(hours) OVER (PARTITION BY value) DESC, value, hours DESC, reason;

CREATE MACRO balance(field := 'speaker') AS TABLE
WITH parts AS (
    SELECT value, sum(duration_s) AS seconds FROM (SELECT $field AS value, duration_s FROM segments WHERE kept) GROUP BY value
),
ranked AS (
    SELECT value, seconds, seconds / sum(seconds) OVER () AS share, row_number() OVER (ORDER BY seconds DESC, value) AS place
    FROM parts WHERE value IS NOT NULL
)
SELECT count(*) AS "values", first(value ORDER BY place) AS largest, max(share) AS largest_share,
    sum(share) FILTER (place <= 10) AS top_10_share, sum(share) FILTER (place <= 100) AS top_100_share,
    -sum(share * log2(nullif(share, 0))) AS entropy, pow(2, entropy) AS effective, sum(seconds) / 3600 AS hours,
    coalesce((SELECT sum(seconds) / 3600 FROM parts WHERE value IS NULL), 0) AS unknown_hours
FROM ranked HAVING count(*) > 0;

CREATE MACRO worst(score := 'dnsmos_ovr', clips := 20) AS TABLE
-- Without text: reading the texts of a million clips to show twenty takes longer than all else.
SELECT segment_id, found AS value, language, speaker, duration_s, source_id, start_s
FROM (
    SELECT segment_id, $score AS found, $badness AS badness, language, speaker, duration_s, source_id, start_s
    FROM segments WHERE kept
)
WHERE found IS NOT NULL ORDER BY badness DESC, segment_id LIMIT clips;

CREATE MACRO pairs(segment := '') AS TABLE
WITH own AS MATERIALIZED (
    SELECT 'reference' AS role, reference_id AS other, cosine, gap FROM reference_pairs WHERE segment_id = segment
    UNION ALL
    SELECT 'spoken', segment_id, cosine, gap FROM reference_pairs WHERE reference_id = segment
)
SELECT role, other AS segment_id, cosine, gap, kept, language, speaker, duration_s
FROM own JOIN segments ON segments.segment_id = own.other ORDER BY role, cosine DESC, segments.segment_id;

CREATE MACRO between_annotators() AS TABLE
WITH shared AS MATERIALIZED (
    SELECT segment_id FROM descriptions WHERE status = 'ok' AND labels IS NOT NULL GROUP BY segment_id HAVING count(*) > 1
),
said AS (
    SELECT segment_id, annotator, unnest($attributes) AS attribute, unnest(
        CASE WHEN json_valid(answered) THEN json_extract_string(answered, $answered_paths) ELSE $labels END
    ) AS answer
    FROM descriptions SEMI JOIN shared USING (segment_id)
    WHERE status = 'ok' AND labels IS NOT NULL
        AND md5_number_lower(segment_id) / 18446744073709551616 < 10000 / (SELECT count(*) FROM shared)
),
counted AS (
    SELECT one.annotator AS annotator, other.annotator AS other_annotator, attribute, one.answer AS a, other.answer AS b,
        count(*) AS clips
    FROM said AS one JOIN said AS other USING (segment_id, attribute)
    WHERE one.annotator < other.annotator AND a <> '$unsure_word' AND b <> '$unsure_word' GROUP BY ALL
),
by_one AS (SELECT annotator, other_annotator, attribute, a AS answer, sum(clips) AS clips FROM counted GROUP BY ALL),
by_other AS (SELECT annotator, other_annotator, attribute, b AS answer, sum(clips) AS clips FROM counted GROUP BY ALL),
chance AS (
    SELECT annotator, other_annotator, attribute, sum(by_one.clips * by_other.clips) AS product
    FROM by_one JOIN by_other USING (annotator, other_annotator, attribute, answer) GROUP BY ALL
),
totals AS (
    SELECT annotator, other_annotator, attribute, CAST(sum(clips) AS BIGINT) AS clips,
        coalesce(sum(clips) FILTER (a = b), 0) / sum(clips) AS agree
    FROM counted GROUP BY ALL
)
SELECT annotator, other_annotator, attribute, clips, agree,
    (agree - coalesce(product, 0) / clips / clips) / nullif(1 - coalesce(product, 0) / clips / clips, 0) AS kappa
FROM totals LEFT JOIN chance USING (annotator, other_annotator, attribute)
ORDER BY annotator, other_annotator, coalesce(list_position($attributes, attribute), 99);

CREATE MACRO similar_voices(voice := '', voices := 10) AS TABLE
WITH known AS MATERIALIZED (
    SELECT speaker, max(gender) AS gender, 12 * log2(avg(pitch_low_hz)) AS pitch, 12 * log2(avg(formant_hz)) AS formant,
        count(*) AS clips
    FROM segments WHERE kept AND speaker IS NOT NULL GROUP BY speaker
),
spread AS (SELECT stddev_pop(pitch) AS pitch, stddev_pop(formant) AS formant FROM known),
own AS MATERIALIZED (
    SELECT * FROM known WHERE speaker = voice OR speaker IN (SELECT speaker FROM segments WHERE segment_id = voice)
)
SELECT known.speaker AS speaker, sqrt(
        pow((known.pitch - own.pitch) / nullif(spread.pitch, 0), 2)
        + coalesce(pow((known.formant - own.formant) / nullif(spread.formant, 0), 2), 0)
    ) AS distance, known.gender AS gender, known.clips AS segments
FROM known, own, spread WHERE known.speaker <> own.speaker AND known.pitch IS NOT NULL AND own.pitch IS NOT NULL
ORDER BY distance, known.speaker LIMIT voices;

CREATE MACRO what_if(threshold := 'min_dnsmos_ovr', new_limit := 3.0) AS TABLE
WITH judged AS (
    SELECT *, NOT kept AND NOT fails AND only_reason = $reason AS gained
    FROM (
        SELECT coalesce(language, 'unknown') AS spoken, duration_s, kept, coalesce($fails AND human IS DISTINCT FROM 'keep', false) AS fails,
            CASE WHEN len(reasons) = 1 THEN reasons[1] END AS only_reason
        FROM segments
    )
)
SELECT CASE WHEN grouping(spoken) = 1 THEN 'all' ELSE spoken END AS language,
    coalesce(sum(duration_s) FILTER (kept), 0) / 3600 AS hours_now,
    coalesce(sum(duration_s) FILTER (gained), 0) / 3600 AS hours_gained,
    coalesce(sum(duration_s) FILTER (kept AND fails), 0) / 3600 AS hours_lost,
    hours_now + hours_gained - hours_lost AS hours_then,
    count(*) FILTER (gained) AS segments_gained,
    count(*) FILTER (kept AND fails) AS segments_lost
FROM judged GROUP BY ROLLUP (spoken) HAVING count(*) > 0 ORDER BY grouping(spoken) DESC, hours_now DESC, language;

CREATE MACRO coverage() AS TABLE
WITH described AS (
    SELECT annotator, count(*) AS clips, count(*) FILTER (status = 'ok') AS described,
        count(*) FILTER (verdict IS NOT NULL) AS verified, count(kept) FILTER (status = 'ok') AS of_kept
    FROM (SELECT annotator, segment_id, status, verdict FROM descriptions)
    LEFT JOIN (SELECT segment_id, kept FROM segments WHERE kept) USING (segment_id) GROUP BY annotator
),
claims AS (SELECT annotator, count(*) AS checks FROM checks GROUP BY annotator)
SELECT annotator, clips, described, of_kept / nullif((SELECT count(*) FROM segments WHERE kept), 0) AS share, verified,
    coalesce(checks, 0) AS checks
FROM described LEFT JOIN claims USING (annotator) ORDER BY annotator;
