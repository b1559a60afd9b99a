-- Table macros over the views, for descriptions of voices: SELECT * FROM confusion(). A macro is not bound before it is used, so
-- that it costs nothing when the catalog is built. Every result is an aggregate. view_columns.py says what the columns mean.

CREATE MACRO confusion() AS TABLE
SELECT annotator, attribute, "where", claimed, found, count(*) AS claims,
    count(*) FILTER (state = 'contradict') AS contradicted
FROM checks WHERE found IS NOT NULL AND state IN ('agree', 'contradict')
GROUP BY ALL ORDER BY ALL;

CREATE MACRO agreement() AS TABLE
-- What the annotator answered: `answered` if the labels were repaired.
WITH said AS (
    SELECT annotator, CASE WHEN json_valid(answered) THEN json_extract_string(answered, $answered_paths) ELSE $labels END AS answers
    FROM descriptions WHERE status = 'ok' AND labels IS NOT NULL
),
counted AS (
    SELECT annotator, count(*) AS descriptions, $unsure AS unsure FROM said GROUP BY annotator
),
answers AS (
    SELECT annotator, descriptions, unnest($attributes) AS attribute, unnest(unsure) AS unsure FROM counted
),
claims AS (
    SELECT annotator, attribute,
        count(*) FILTER ("where" = 'json' AND state = 'agree') AS agree,
        count(*) FILTER ("where" = 'json' AND state = 'contradict') AS contradict,
        count(*) FILTER ("where" = 'json' AND state = 'unchecked') AS unchecked,
        count(*) FILTER ("where" = 'prose' AND state <> 'unchecked') AS prose_claims,
        count(*) FILTER ("where" = 'prose' AND state = 'contradict') AS prose_contradict
    FROM checks WHERE attribute <> 'leak' GROUP BY ALL
)
SELECT annotator, attribute, descriptions, unsure / descriptions AS unsure, agree / descriptions AS agree,
    contradict / descriptions AS contradict, unchecked / descriptions AS unchecked, prose_claims,
    prose_contradict / nullif(prose_claims, 0) AS prose_contradict
FROM answers FULL JOIN claims USING (annotator, attribute)
ORDER BY annotator, coalesce(list_position($attributes, attribute), 99), attribute;

CREATE MACRO verdicts() AS TABLE
SELECT annotator, segment.language AS language, count(*) AS descriptions,
    count(*) FILTER (verdict = 'agree') AS agree,
    count(*) FILTER (verdict = 'repaired') AS repaired,
    count(*) FILTER (verdict = 'dropped') AS dropped,
    count(*) FILTER (verdict IS NULL) AS not_compared,
    count(*) FILTER (list_contains(disagreements, 'leak')) AS leaks
FROM descriptions AS description JOIN (SELECT segment_id, language FROM segments) AS segment USING (segment_id)
WHERE status = 'ok' GROUP BY ALL ORDER BY annotator, descriptions DESC, language;

CREATE MACRO repairs() AS TABLE
SELECT annotator, attribute, "where", action, count(*) AS claims
FROM checks WHERE action <> 'none' GROUP BY ALL ORDER BY annotator, claims DESC, attribute, "where", action;

CREATE MACRO discarded() AS TABLE
WITH clips AS (
    SELECT annotator, status, verdict,
        CASE WHEN status <> 'ok' THEN split_part(status, ':', 1) ELSE verdict END AS outcome,
        -- The kind of a failure is what stands before its details: "failed:invalid: gender is robot".
        CASE WHEN status <> 'ok' THEN trim(regexp_extract(status, '^[^:]*:([^:(]*)', 1))
            ELSE array_to_string(list_sort(disagreements), ', ') END AS reason
    FROM descriptions
),
totals AS (SELECT annotator, count(*) AS total FROM clips GROUP BY annotator),
lost AS (
    SELECT annotator, outcome, left(reason, 80) AS reason, count(*) AS clips, min(status) AS example
    FROM clips WHERE status <> 'ok' OR verdict = 'dropped' GROUP BY ALL
)
SELECT annotator, outcome, reason, clips, clips / total AS share, example
FROM lost JOIN totals USING (annotator) ORDER BY annotator, clips DESC, outcome, reason;

CREATE MACRO voice_consistency() AS TABLE
WITH totals AS (SELECT annotator, count(*) AS total FROM descriptions GROUP BY annotator),
said AS (
    SELECT annotator, speaker, segment_id, labels.gender AS gender, labels.age AS age, labels.texture AS texture,
        CASE WHEN json_valid(answered)
            THEN json_extract_string(answered, ['$$.attributes.gender', '$$.attributes.age'])
            ELSE [labels.gender, labels.age] END AS answers
    FROM descriptions JOIN (SELECT segment_id, speaker FROM segments WHERE speaker IS NOT NULL) USING (segment_id)
    JOIN totals USING (annotator)
    WHERE status = 'ok' AND labels IS NOT NULL AND left(md5(speaker), 8) <= printf('%08x', CAST(floor(least(10000 / total, 1) * 4294967295) AS BIGINT))
),
-- The order of the ids is arbitrary: they are hashes.
neighbors AS (
    SELECT annotator, speaker, {'gender': gender, 'age': age, 'texture': texture, 'answers': answers} AS own, lag(own) OVER (
        PARTITION BY annotator, speaker ORDER BY segment_id
    ) AS other
    FROM said
)
SELECT annotator, count(DISTINCT speaker) AS voices, count(*) AS pairs,
    avg(CAST(own.gender = other.gender AS INT)) FILTER ('unsure' NOT IN (own.gender, other.gender)) AS gender,
    avg(CAST(own.age = other.age AS INT)) FILTER ('unsure' NOT IN (own.age, other.age)) AS age,
    avg(CAST(own.answers[1] = other.answers[1] AS INT)) FILTER ('unsure' NOT IN (own.answers[1], other.answers[1]))
        AS gender_answered,
    avg(CAST(own.answers[2] = other.answers[2] AS INT)) FILTER ('unsure' NOT IN (own.answers[2], other.answers[2]))
        AS age_answered,
    avg(
        len(list_intersect(own.texture, other.texture))
        / nullif(len(list_distinct(list_concat(own.texture, other.texture))), 0)
    ) AS texture
FROM neighbors WHERE other IS NOT NULL GROUP BY annotator ORDER BY annotator;

CREATE MACRO caption_variety() AS TABLE
WITH counted AS (
    SELECT annotator, count(*) AS clips FROM descriptions
    WHERE status = 'ok' AND verdict IS DISTINCT FROM 'dropped' GROUP BY annotator
),
described AS MATERIALIZED (
    -- Descriptions from before the column `captions` have two registers.
    SELECT annotator, md5(segment_id) AS place, clips, coalesce(captions, [
        {'register': 'brief', 'language': language, 'text': brief}, {'register': 'full', 'language': language, 'text': "full"}
    ]) AS listed
    FROM descriptions JOIN counted USING (annotator)
    WHERE status = 'ok' AND verdict IS DISTINCT FROM 'dropped'
        AND left(md5(segment_id), 8) <= printf('%08x', CAST(floor(least(20000 / clips, 1) * 4294967295) AS BIGINT))
),
totals AS (
    SELECT annotator, caption.register AS register, caption.language AS language, count(*) AS captions,
        count(*) - count(DISTINCT hash(caption.text)) AS duplicates
    FROM (SELECT annotator, unnest(listed) AS caption FROM described) WHERE caption.text IS NOT NULL GROUP BY ALL
),
drawn AS (
    SELECT annotator, unnest(listed) AS caption FROM described
    WHERE left(place, 8) <= printf('%08x', CAST(floor(least(1000 / clips, 1) * 4294967295) AS BIGINT))
),
-- Materialized: the words of a caption are used three times.
sample AS MATERIALIZED (
    SELECT annotator, caption.register AS register, caption.language AS language,
        language IN ('zh', 'ja', 'th', 'lo', 'my', 'km') AS signs,
        CASE WHEN signs THEN regexp_extract_all(caption.text, '[\p{L}\p{N}]')
            ELSE regexp_extract_all(lower(caption.text), '[\p{L}\p{N}\p{M}''’-]+') END AS words
    FROM drawn WHERE caption.text IS NOT NULL
),
lengths AS (
    SELECT annotator, register, language, median(len(words)) AS length, quantile_cont(len(words), 0.95) AS longest
    FROM sample GROUP BY ALL
),
pairs AS (
    SELECT annotator, register, language,
        unnest(list_transform(range(1, len(words)), lambda n: words[n] || ' ' || words[n + 1])) AS pair
    FROM sample
),
distinct_pairs AS (
    SELECT annotator, register, language, count(DISTINCT pair) / count(*) AS distinct_2 FROM pairs GROUP BY ALL
),
openings AS (
    SELECT annotator, register, language,
        CASE WHEN signs THEN array_to_string(words[1:4], '') ELSE array_to_string(words[1:3], ' ') END AS opening,
        count(*) AS begun
    FROM sample GROUP BY ALL
),
frequent AS (
    SELECT annotator, register, language, first(opening ORDER BY begun DESC, opening) AS opening,
        max(begun) / sum(begun) AS opening_share
    FROM openings GROUP BY ALL
)
SELECT annotator, register, language, captions, duplicates, length, longest, distinct_2, opening, opening_share
FROM totals
LEFT JOIN lengths USING (annotator, register, language)
LEFT JOIN distinct_pairs USING (annotator, register, language)
LEFT JOIN frequent USING (annotator, register, language)
ORDER BY annotator, coalesce(list_position(['brief', 'style', 'full', 'persona'], register), 9), register, language;

CREATE MACRO spending() AS TABLE
-- Two scans: to carry all columns through the join with the segments would take twice as long.
WITH asked AS (
    SELECT annotator, model, model_version, prompt_version, count(*) AS clips, count(*) FILTER (status = 'ok') AS described,
        sum(tokens_in) AS tokens_in, sum(tokens_out) AS tokens_out, sum(cost_usd) AS cost_usd, sum(len(captions)) AS usable
    FROM descriptions WHERE status <> 'unasked' GROUP BY ALL
),
timed AS (
    SELECT annotator, model, model_version, prompt_version, sum(duration_s) AS seconds
    FROM (
        SELECT annotator, model, model_version, prompt_version, segment_id FROM descriptions WHERE status <> 'unasked'
    ) JOIN (SELECT segment_id, duration_s FROM segments) USING (segment_id)
    GROUP BY ALL
)
SELECT asked.annotator, asked.model, asked.model_version, asked.prompt_version, clips, described, seconds,
    CAST(tokens_in AS BIGINT) AS tokens_in,
    CAST(tokens_out AS BIGINT) AS tokens_out,
    cost_usd,
    cost_usd / nullif(seconds / 3600, 0) AS usd_per_hour,
    CAST(coalesce(usable, 0) AS BIGINT) AS captions,
    cost_usd / nullif(usable / 1000, 0) AS usd_per_1000_captions
FROM asked LEFT JOIN timed ON
    (asked.annotator, asked.model, asked.model_version, asked.prompt_version)
    IS NOT DISTINCT FROM (timed.annotator, timed.model, timed.model_version, timed.prompt_version)
ORDER BY annotator, clips DESC, model, model_version, prompt_version;

CREATE MACRO human_agreement() AS TABLE
WITH said AS (SELECT segment_id, "by", verdict, text FROM marks WHERE counts),
pairs AS (
    SELECT one."by" AS "first", other."by" AS "second", segment_id, one.verdict AS a, other.verdict AS b,
        one.text AS text_a, other.text AS text_b
    FROM said AS one JOIN said AS other USING (segment_id) WHERE one."by" < other."by"
),
counted AS (
    SELECT "first", "second",
        count(*) FILTER (a IS NOT NULL AND b IS NOT NULL) AS segments,
        count(*) FILTER (a = b) AS agree,
        count(*) FILTER (a = 'keep' AND b IS NOT NULL) AS kept_a,
        count(*) FILTER (b = 'keep' AND a IS NOT NULL) AS kept_b,
        count(*) FILTER (text_a IS NOT NULL AND text_b IS NOT NULL) AS texts,
        count(*) FILTER (text_a = text_b) AS same_text,
        coalesce((list(segment_id ORDER BY segment_id) FILTER (a <> b))[:10], []) AS disputed
    FROM pairs GROUP BY ALL
),
chances AS (
    SELECT *, (kept_a * kept_b + (segments - kept_a) * (segments - kept_b)) / nullif(segments * segments, 0) AS by_chance
    FROM counted
)
SELECT "first", "second", segments, agree, agree / nullif(segments, 0) AS share,
    (agree / nullif(segments, 0) - by_chance) / nullif(1 - by_chance, 0) AS kappa, texts, same_text, disputed
FROM chances ORDER BY segments DESC, "first", "second";
