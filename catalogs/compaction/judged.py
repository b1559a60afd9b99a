"""What thresholds say of each row, kept beside the row: to decide it for each query would take longer than the query."""

from __future__ import annotations

from dataclasses import dataclass

from catalogs.corpus.ids import short_hash
from catalogs.corpus.thresholds import Thresholds

KEPT, REASONS = "judged_kept", "judged_reasons"


@dataclass(frozen=True)
class Judge:
    """Thresholds as columns of an index. Rows that were judged by others are judged in each query until they are copied again."""

    limits: Thresholds

    @property
    def key(self) -> str:
        """A hash of the rules."""
        return short_hash(self.limits.kept_sql(), self.limits.all_reasons_sql())

    def judged(self, source: str, is_judged: bool = False) -> str:
        """Return a SELECT of the rows of a source with both columns. is_judged: whether it has them, by other thresholds."""
        left_out = f" EXCLUDE ({KEPT}, {REASONS})" if is_judged else ""
        kept, reasons = self.limits.kept_sql(), self.limits.all_reasons_sql()
        return f"SELECT *{left_out}, {kept} AS {KEPT}, {reasons} AS {REASONS} FROM {source}"

    def answers(self, fresh: str | None, others: str | None) -> str | None:
        """Return SQL for the rows with `kept` and `reasons` by these thresholds: taken from fresh ones, decided for the others."""
        kept, reasons = self.limits.kept_sql(), self.limits.all_reasons_sql()
        selects = [
            f"SELECT * REPLACE ({values['kept']} AS kept, {values['reasons']} AS reasons) FROM {source}"
            for source, values in (
                (fresh, {"kept": KEPT, "reasons": REASONS}),
                (others, {"kept": kept, "reasons": reasons}),
            )
            if source is not None
        ]
        return f"({' UNION ALL BY NAME '.join(selects)})" if selects else None
