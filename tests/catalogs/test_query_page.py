"""The DuckDB session of docs/query.md runs as it stands there, on a corpus that was moved, with nothing of ours imported."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from corpus_builders import make_unit

from catalogs.corpus.commit import commit_unit, create_corpus
from catalogs.query.question_columns import QUESTION_COLUMNS
from catalogs.query.views import build_catalog

PAGE = (Path(__file__).parents[2] / "docs" / "query.md").read_text(encoding="utf-8")


def corpus_of_the_page(root: Path) -> None:
    """Twelve segments of two sessions in two languages; noise rises from one to the next."""
    create_corpus(root)
    for name, language in (("a", "en"), ("b", "zh")):
        unit = make_unit(name, 6)
        for number, row in enumerate(unit.rows):
            row |= {"language": language, "speaker": f"{name}-spk{number % 2}", "snr_db": 30.0 - 4 * number}
        commit_unit(root, unit)
    build_catalog(root)


def test_the_session_of_the_page_runs_on_a_moved_corpus(tmp_path: Path) -> None:
    [session] = re.findall(r"```pycon\n(.*?)```", PAGE, re.DOTALL)
    corpus_of_the_page(tmp_path / "made")
    (tmp_path / "made").rename(tmp_path / "moved")
    (tmp_path / "session.txt").write_text(session)
    code = "import doctest, sys; sys.exit(doctest.testfile(sys.argv[1], module_relative=False)[0] or 'voxmill' in sys.modules)"
    command = [sys.executable, "-I", "-c", code, str(tmp_path / "session.txt")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_names_every_question() -> None:
    assert [macro for macro in QUESTION_COLUMNS if f"{macro}(" not in PAGE] == []
