"""Marks in the catalog: the view `marks` reads the files of the pass directly, and `segments` shows what people said.

A mark thus counts in the next query, in any client, without a new catalog. Without marks the views are as they would be without
this module.
"""

from __future__ import annotations

from collections.abc import Mapping

from catalogs.corpus.marks import DROP, HUMAN, KEEP

HUMAN_COLUMNS = ("human", "uncorrected_text")
"""Columns of the view `segments` that say what people decided."""
_FIELDS = ("verdict", "text")


def marks_sql(types: Mapping[str, str], has_marks: bool) -> str:
    """Return SQL for all marks, each with `undone` and `counts`. types: the DuckDB types of their columns."""
    if not has_marks:
        nothing = ", ".join(f'CAST(NULL AS {kind}) AS "{name}"' for name, kind in types.items())
        return f"(SELECT {nothing}, false AS undone, false AS counts WHERE false)"
    columns = ", ".join(f"\"{name}\": '{kind}'" for name, kind in types.items())
    # Half a line that a kill left is skipped. fsck reports other lines that are not marks.
    source = (
        f"read_json(corpus_folder() || 'annotations/{HUMAN}/*.jsonl', format = 'newline_delimited', "
        f"columns = {{{columns}}}, ignore_errors = true)"
    )
    is_mark = (
        'mark_id IS NOT NULL AND segment_id IS NOT NULL AND "by" IS NOT NULL AND "at" IS NOT NULL '
        f"AND coalesce(verdict, '{KEEP}') IN ('{KEEP}', '{DROP}')"
    )
    return (
        f"(WITH lines AS MATERIALIZED (SELECT * FROM {source} WHERE {is_mark}), "
        "known AS (SELECT *, mark_id IN (SELECT undoes FROM lines WHERE undoes IS NOT NULL) AS undone FROM lines) "
        "SELECT *, undoes IS NULL AND NOT undone AND row_number() OVER ("
        'PARTITION BY segment_id, "by", undone OR undoes IS NOT NULL ORDER BY "at" DESC, mark_id DESC) = 1 AS counts '
        "FROM known)"
    )


def marked_sql(index: str, marks: str, has_marks: bool) -> str:
    """Return SQL for the rows of an index with what people said of them, and HUMAN_COLUMNS. index, marks: SQL of their rows."""
    if not has_marks:
        return f"(SELECT *, {', '.join(f'CAST(NULL AS VARCHAR) AS {name}' for name in HUMAN_COLUMNS)} FROM {index})"
    latest = ", ".join(
        f'arg_max({name}, ("at", "by", mark_id)) FILTER (WHERE {name} IS NOT NULL) AS {name}' for name in _FIELDS
    )
    said = f"(SELECT segment_id, {latest} FROM {marks} WHERE counts GROUP BY segment_id)"
    is_kept = f"said.verdict = '{KEEP}' AND own.shard IS NOT NULL"
    return (
        "(SELECT own.* REPLACE ("
        f"CASE WHEN {is_kept} THEN true WHEN said.verdict = '{DROP}' THEN false ELSE own.kept END AS kept, "
        f"CASE WHEN {is_kept} THEN CAST([] AS VARCHAR[]) "
        f"WHEN said.verdict = '{DROP}' THEN list_concat(['{HUMAN}'], own.reasons) ELSE own.reasons END AS reasons, "
        "coalesce(said.text, own.text) AS text, "
        f"CASE WHEN said.text IS NULL THEN own.text_source ELSE '{HUMAN}' END AS text_source), "
        "said.verdict AS human, CASE WHEN said.text IS NOT NULL THEN own.text END AS uncorrected_text "
        f"FROM {index} AS own LEFT JOIN {said} AS said USING (segment_id))"
    )
