"""The command line, the doctor and the demo: thin wrappers that import the other packages when they are used.

`browse`, `card`, `decouple`, `describe`, `export`, `forget`, `import_corpus`, `lineage`, `prepare`, `query`, `retry`, `show`,
`status` and `verify_corpus` are the functions behind the commands of these names, `run_flow` is that of `run`, `speak_table`
that of `speak --table`. `resume_forgetting` and `list_forgotten` are `forget --resume` and `forget --list`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxcpm.lazy import exported

if TYPE_CHECKING:
    from annotators.describe import describe
    from annotators.verification.verify import verify_corpus
    from catalogs.browse.server import browse
    from catalogs.exchange.export import export
    from catalogs.exchange.importing import import_corpus
    from catalogs.inspection.show import show
    from catalogs.inspection.status import status
    from catalogs.query.views import query
    from pipeline.config import load_config
    from pipeline.prepare import prepare
    from pipeline.retry import retry
    from pipeline.synthesis.decouple import decouple
    from pipeline.synthesis.table.speak_table import speak_table
    from trainer.dryrun.lineage import lineage
    from voxmill.flow.run import run_flow
    from voxmill.flow.settings import load_flow
    from voxmill.forgetting.forget import forget, list_forgotten, resume_forgetting
    from voxmill.publish import card

__version__ = "0.1.0"

_HOMES = {
    "browse": "catalogs.browse.server",
    "card": "voxmill.publish",
    "decouple": "pipeline.synthesis.decouple",
    "describe": "annotators.describe",
    "export": "catalogs.exchange.export",
    "forget": "voxmill.forgetting.forget",
    "import_corpus": "catalogs.exchange.importing",
    "lineage": "trainer.dryrun.lineage",
    "list_forgotten": "voxmill.forgetting.forget",
    "load_config": "pipeline.config",
    "load_flow": "voxmill.flow.settings",
    "prepare": "pipeline.prepare",
    "query": "catalogs.query.views",
    "resume_forgetting": "voxmill.forgetting.forget",
    "retry": "pipeline.retry",
    "run_flow": "voxmill.flow.run",
    "show": "catalogs.inspection.show",
    "speak_table": "pipeline.synthesis.table.speak_table",
    "status": "catalogs.inspection.status",
    "verify_corpus": "annotators.verification.verify",
}

__all__ = [
    "browse",
    "card",
    "decouple",
    "describe",
    "export",
    "forget",
    "import_corpus",
    "lineage",
    "list_forgotten",
    "load_config",
    "load_flow",
    "prepare",
    "query",
    "resume_forgetting",
    "retry",
    "run_flow",
    "show",
    "speak_table",
    "status",
    "verify_corpus",
]


__getattr__ = exported(__name__, _HOMES)
