"""Write the pages that follow from the code's own declarations: docs/stages/*.md, docs/commands.md, and tables in
docs/corpus.md, docs/training.md and docs/annotators.md.

    python docs/generate.py            # write them
    python docs/generate.py --check    # exit 1 when one is out of date (a test runs this)

What a page says beyond the declarations stands in docs/stages/notes/<stage>.md and is appended as it is.
"""

from __future__ import annotations

import inspect
import sys
import tempfile
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent

#: Which paper a stage's words speak of. Its text is not in this repository: rules are given by what they say, not by section.
PAPER = "*The paper* is the VoxCPM2 technical report, [arXiv:2606.06928](https://arxiv.org/abs/2606.06928)."
COLUMNS_START = (
    "<!-- columns: made by docs/generate.py from catalogs/corpus/columns.py and catalogs/query/view_columns.py -->"
)
COLUMNS_END = "<!-- end of columns -->"
KINDS_START = "<!-- sample kinds: made by docs/generate.py from trainer/sample_kinds.py -->"
KINDS_END = "<!-- end of sample kinds -->"
ATTRIBUTES_START = "<!-- attributes: made by docs/generate.py from catalogs/vocabulary/voices.py -->"
ATTRIBUTES_END = "<!-- end of attributes -->"
PRICES_START = "<!-- prices: made by docs/generate.py from annotators/paid/prices.toml -->"
PRICES_END = "<!-- end of prices -->"
sys.path.insert(0, str(DOCS.parent))


def stage_page(name: str) -> str:
    """The page of one stage."""
    from catalogs.weights import registry
    from pipeline.stages import STAGE_GROUPS, stage_class

    kind = stage_class(name)
    module = inspect.getmodule(kind)
    assert module is not None
    partners = next(group for group in STAGE_GROUPS if name in group)
    weights = kind(kind.config_type()).weights()
    lines = [
        f"# {name}",
        "",
        f"Version {kind.version} · [`{module.__name__.replace('.', '/')}.py`]"
        f"(../../{module.__name__.replace('.', '/')}.py)",
        "",
        inspect.cleandoc(module.__doc__ or ""),
        "",
        inspect.cleandoc(kind.__doc__ or ""),
        "",
        PAPER,
        "",
        f"* **reads** {_names(kind.inputs) or 'the recordings'}",
        f"* **writes** {_names(kind.outputs) or 'nothing but what it removes'}",
        f"* **shares an actor with** {_names(n for n in partners if n != name) or 'no other stage'}",
        f"* **asks for** {kind.resources.cpus:g} CPUs, {kind.resources.memory_bytes / 2**20:.0f} MB of memory",
    ]
    for weight in weights:
        entry = registry.weights(weight)
        lines.append(f"* **weights** `{weight}`: {entry.role}, {entry.license}, {entry.size}")
    lines += ["", "## Settings", "", *_settings(name, kind.config_type)]
    notes = DOCS / "stages" / "notes" / f"{name}.md"
    if notes.is_file():
        lines += ["", notes.read_text(encoding="utf-8").strip()]
    return "\n".join(lines) + "\n"


def _settings(name: str, config: Any) -> list[str]:
    if not config.model_fields:
        return ["None."]
    rows = ["| `--set` | default | what it is |", "|---|---|---|"]
    for key, field in config.model_fields.items():
        words = " ".join((field.description or "").split())
        if not words:
            raise ValueError(f"the setting {name}.{key} has no words: write a docstring under it")
        default = field.get_default(call_default_factory=True)
        rows.append(f"| `{name}.{key}` | `{'null' if default is None else default}` | {words} |")
    return rows


def _names(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)


def commands_page() -> str:
    """The page of all commands, from their own help."""
    import click
    import typer

    from voxmill.cli import app

    group = typer.main.get_command(app)
    lines = ["# Commands", "", "Made from the commands' own help. Every command takes `--json` for programs.", ""]

    def add(command: Any, path: str) -> None:
        if hasattr(command, "commands"):
            for name, sub in command.commands.items():
                add(sub, f"{path} {name}")
            return
        text, _, example = inspect.cleandoc(command.help or "").partition("Example:")
        lines.extend([f"## `{path.strip()}`", "", text.strip(), ""])
        if example:
            lines.extend(["```console", f"$ {' '.join(example.split())}", "```", ""])
        rows = []
        for parameter in command.params:
            names = ", ".join(f"`{name}`" for name in parameter.opts)
            if isinstance(parameter, click.Argument) or parameter.param_type_name == "argument":
                names = f"`{(parameter.metavar or parameter.name or '').upper()}`"
            words = " ".join((getattr(parameter, "help", "") or "").split())
            if names != "`--help`":
                rows.append(f"| {names} | {words} |")
        lines.extend(["| | |", "|---|---|", *rows, ""])

    add(group, "voxmill")
    return "\n".join(lines).rstrip() + "\n"


def corpus_page() -> str:
    """The page of the corpus format with the tables of all columns between its two marks."""
    from catalogs.corpus.commit import create_corpus
    from catalogs.query.view_columns import MACRO_COLUMNS, MACRO_WORDS, VIEW_COLUMNS, VIEW_WORDS
    from catalogs.query.views import VIEWS, connect

    sql = "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal ORDER BY column_index"
    with tempfile.TemporaryDirectory() as folder:
        create_corpus(folder)
        with connect(folder) as connection:
            columns = connection.execute(sql).fetchall()
            results = {m: connection.sql(f"SELECT * FROM {m}()") for m in MACRO_COLUMNS}
            types = {m: list(zip(found.columns, map(str, found.types), strict=True)) for m, found in results.items()}
    tables = [
        _columns_table(view, VIEW_WORDS[view], VIEW_COLUMNS[view], [pair for table, *pair in columns if table == view])
        for view in VIEWS
    ]
    tables += [_columns_table(f"{m}()", MACRO_WORDS[m], MACRO_COLUMNS[m], types[m]) for m in MACRO_COLUMNS]
    return between_marks("corpus.md", COLUMNS_START, COLUMNS_END, "\n\n".join(tables))


def _columns_table(name: str, words: str, declared: Any, types: Any) -> str:
    """The table of the columns of a view or a macro. types: (column, type of DuckDB) in order."""
    known = {column.name: column for column in declared}
    rows = ["| column | type | unit or range | what it is |", "|---|---|---|---|"]
    for column, kind in types:
        kind = "STRUCT" if kind.startswith("STRUCT") else kind
        rows.append(f"| `{column}` | {kind.lower()} | {known[column].unit} | {known[column].meaning} |")
    return "\n".join([f"### `{name}`", "", words, "", *rows])


def training_page() -> str:
    """The page on training with the table of sample kinds between its two marks."""
    from trainer.sample_kinds import table_rows

    return between_marks("training.md", KINDS_START, KINDS_END, "\n".join(table_rows()))


def annotators_page() -> str:
    """The page on annotators with the table of attributes and the table of prices, each between its two marks."""
    text = (DOCS / "annotators.md").read_text(encoding="utf-8")
    text = replaced(text, "annotators.md", ATTRIBUTES_START, ATTRIBUTES_END, "\n".join(_attributes()))
    return replaced(text, "annotators.md", PRICES_START, PRICES_END, "\n".join(_prices()))


def _attributes() -> list[str]:
    from catalogs.vocabulary.voices import CLOSED, LISTS

    rows = ["| attribute | values |", "|---|---|"]
    rows += [f"| `{name}` | {', '.join(values)}, unsure |" for name, values in CLOSED.items()]
    for name, (values, most) in LISTS.items():
        number = f"at most {most} of " if most < len(values) else "any of "
        rows.append(f"| `{name}` | {number}{', '.join(values)} |")
    return rows


def _prices() -> list[str]:
    from annotators.paid.prices import known_prices

    rows = [
        "| model | tier | from | until | text in | audio in | cached in | out | as of |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for price in known_prices():
        numbers = (f"{float(value):g}" for value in (price.in_text, price.in_audio, price.cached, price.out))
        days = (str(day or "") for day in (price.first, price.last))
        rows.append(f"| `{price.model}` | {price.tier} | {' | '.join(days)} | {' | '.join(numbers)} | {price.as_of} |")
    return rows


def between_marks(page: str, first: str, last: str, text: str) -> str:
    """A page with `text` in the place between two marks."""
    return replaced((DOCS / page).read_text(encoding="utf-8"), page, first, last, text)


def replaced(content: str, page: str, first: str, last: str, text: str) -> str:
    """The content of a page with `text` in the place between two marks."""
    before, start, rest = content.partition(first)
    _, end, after = rest.partition(last)
    if not start or not end:
        raise ValueError(f"docs/{page} lacks the marks between which generated text stands: {first} and {last}")
    return "\n\n".join([before + start, text, end + after])


def pages() -> dict[Path, str]:
    """Every generated page with its text."""
    from pipeline.stages import STAGE_NAMES

    found = {DOCS / "stages" / f"{name}.md": stage_page(name) for name in STAGE_NAMES}
    found[DOCS / "commands.md"] = commands_page()
    found[DOCS / "corpus.md"] = corpus_page()
    found[DOCS / "training.md"] = training_page()
    found[DOCS / "annotators.md"] = annotators_page()
    return found


def main() -> int:
    """Write or check."""
    stale = [path for path, text in pages().items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(DOCS.parent)} is out of date; run: python docs/generate.py")
        return bool(stale)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    print(f"{len(stale)} pages written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
