"""The places of heavy libraries, file sizes, and a quick command line. import-linter holds the arrows (`make lint`)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("catalogs", "voxcpm", "annotators", "pipeline", "trainer", "evaluation", "voxmill")

#: Libraries that may be imported in these places only (anywhere in the file), by prefix of the path.
PLACES = {
    # The launcher only places one process a rank; the model and the data never see Ray.
    "ray": (
        "pipeline/engine/ray_actor.py",
        "pipeline/engine/ray_engine.py",
        "pipeline/engine/ray_node.py",
        "trainer/ray_launcher.py",
    ),
    "duckdb": ("catalogs/",),
    "starlette": ("catalogs/browse/", "voxcpm/server/"),
    "uvicorn": ("catalogs/browse/", "voxcpm/server/"),
    "google": ("annotators/providers/",),
    "httpx": ("annotators/providers/",),
    "httpx2": ("annotators/providers/",),
    "openai": ("annotators/providers/",),
    "c2pa": ("voxcpm/provenance/c2pa/",),
    "cryptography": ("voxcpm/provenance/c2pa/", "voxcpm/weights/signing/"),
}
#: Never imported at the head of a file, so that importing our packages stays quick; only where they are used.
LATE = {
    "ray",
    "demucs",
    "speechbrain",
    "faster_whisper",
    "google",
    "httpx2",
    "onnxruntime",
    "duckdb",
    "av",
    "silero_vad",
    "c2pa",
    "cryptography",
}
#: Files that are themselves imported only where they are used.
LATE_EXCEPT = {
    "ray": ("pipeline/engine/ray_actor.py", "pipeline/engine/ray_engine.py", "pipeline/engine/ray_node.py"),
    "faster_whisper": ("pipeline/speech/whisper_model.py",),
}


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def test_no_package_has_more_than_twenty_entries_side_by_side() -> None:
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    entries: dict[Path, set[str]] = {}
    for path in map(Path, listed.splitlines()):
        for folder in path.parents[:-1]:
            # Below the top, the file that makes a folder a package is not counted.
            if path.name != "__init__.py" or path.parent != folder or len(folder.parts) == 1:
                entries.setdefault(folder, set()).add(path.relative_to(folder).parts[0])
    assert len(entries) > 20 and not {str(folder): len(found) for folder, found in entries.items() if len(found) > 20}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, at the head of the file) for every import statement; `if TYPE_CHECKING` blocks do not count as head."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    head = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in head) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, id(node) in head


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_libraries_are_imported_in_their_places(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    for module, at_head in imports(path):
        top = module.split(".")[0]
        if top in PLACES:
            assert name.startswith(PLACES[top]), f"{name} imports {module}; {top} belongs in {PLACES[top]}"
        if top in LATE and at_head:
            assert name.startswith(LATE_EXCEPT.get(top, ("-",))), (
                f"{name} imports {module} at its head; import it where it is used"
            )


def test_no_file_is_too_long() -> None:
    long = {str(p.relative_to(ROOT)): n for p in sources() if (n := len(p.read_text("utf-8").splitlines())) > 450}
    assert not long, f"files nobody reads in one sitting: {long}"


def test_command_line_starts_without_heavy_libraries() -> None:
    code = "import sys, voxmill.cli; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    heavy = {"torch", "numpy", "ray", "pyarrow", "duckdb", "datasets", "faster_whisper", "speechbrain", "demucs", "av"}
    assert not heavy & loaded


def test_the_http_process_of_the_server_has_no_torch() -> None:
    code = "import sys, voxcpm.cli, voxcpm.server.run, voxcpm.server.encode; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_help_names_the_commands() -> None:
    # How fast it answers is measured in benchmarks/, what keeps it fast is asserted above.
    done = subprocess.run([sys.executable, "-m", "voxmill.cli", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "prepare" in done.stdout
