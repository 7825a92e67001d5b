"""The house: what imports what, what loads TensorFlow, which names are public."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import keras_lth

PACKAGE = Path(keras_lth.__file__).parent
ROOT = Path(__file__).parents[1]
# Imports go up this list: a room may use those before it.
ROOMS = (
    "names", "titles", "arguments", "tables", "seeds", "ops", "files", "store", "plans", "masks", "structures",
    "keeping", "densities", "isometry", "selection", "rates", "schedules", "rounds", "imp", "tickets", "surgery",
    "criteria", "layers", "callbacks", "analysis", "models", "export", "datasets", "training", "compat", "experiments",
    "configs", "report", "bin",
)  # fmt: skip
# Tickets are applied to models, callbacks end with an analysis or a report, and an analysis measures on several
# replicas as the training loop does: imported when asked for, inside a function.
LATE = {("tickets", "surgery"), ("callbacks", "analysis"), ("callbacks", "report"), ("analysis", "training")}


def imports(path: Path) -> set[tuple[str, bool]]:
    """Rooms that a module imports, and whether at its top level."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    found = set()
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "keras_lth":
            parts = node.module.split(".")
            names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name.split(".")[1] for a in node.names if a.name.startswith("keras_lth.")]
        found |= {(name, id(node) in top) for name in names}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_up(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    assert room in ROOMS
    for name, at_top in imports(path):
        if name not in ROOMS or name == room:
            continue
        up = ROOMS.index(name) < ROOMS.index(room)
        assert up or ((room, name) in LATE and not at_top), f"{path.name} imports {name}"


def test_public_names() -> None:
    named = {"IMPCallback", "InstabilityCallback", "Masks", "Snapshot", "Ticket", "mask", "unmask", "prunable"}
    assert named <= set(dir(keras_lth))
    for name in keras_lth.__all__:
        assert getattr(keras_lth, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = keras_lth.nothing


def test_the_values_need_no_tensorflow() -> None:
    code = (
        "import sys, keras_lth as lth;"
        "lth.Masks; lth.select; lth.Ticket; lth.schedules; lth.rounds; lth.ops; lth.files; lth.report;"
        "lth.IMP; lth.plans; lth.export.load; lth.store; import keras_lth.experiments.lottery;"
        "bad = {'tensorflow', 'keras'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("folder", [PACKAGE, ROOT / "configs"], ids=lambda path: path.name)
def test_the_syntax_is_that_of_the_oldest_python(folder: Path) -> None:
    """`make proof` also runs wheels on it."""
    (oldest,) = re.findall(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    for path in sorted(folder.rglob("*.py")):
        ast.parse(path.read_text(), str(path), feature_version=(3, int(oldest)))


def beside(folder: Path, name: str, version: str) -> subprocess.CompletedProcess[str]:
    """What ``import keras_lth`` says where a package is of another version."""
    metadata = folder / f"{name}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])}
    command = [sys.executable, "-c", "import keras_lth"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "version", "kind"),
    [
        ("tensorflow", "2.18.1", "ImportError"),
        ("tensorflow", "2.19.0rc1", None),
        ("tensorflow", "2.22.0", "RuntimeWarning"),
        ("keras", "2.15.0", "ImportError"),
        ("keras", "3.7.0", "ImportError"),
    ],
)
def test_another_tensorflow_or_keras(name: str, version: str, kind: str | None, tmp_path: Path) -> None:
    done = beside(tmp_path, name, version)
    assert (done.returncode == 0) == (kind != "ImportError"), done.stderr
    if kind is None:
        assert not done.stderr
        return
    (spec,) = re.findall(rf'"({name}>=.*)"', (ROOT / "pyproject.toml").read_text())
    (line,) = [line for line in done.stderr.splitlines() if version in line]
    assert kind in line and f"pip install '{spec}'" in line and len(line) < 200


@pytest.mark.parametrize("given", [None, "false"])
def test_memory_stays_with_tensorflow(given: str | None) -> None:
    """In the process that imports the package, unless its environment says otherwise."""
    names = "TF_CPU_ALLOCATOR_USE_BFC", "TF_CPU_BFC_MEM_LIMIT_IN_MB"
    environment = {name: value for name, value in os.environ.items() if name not in names}
    if given is not None:
        environment[names[0]] = given
    code = f"import os, keras_lth; print(*map(os.environ.get, {names}))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    kept, limit = done.stdout.split()
    assert kept == (given or "true")
    # In MB; TensorFlow's own limit is 64 GB.
    assert limit == "None" if given else int(limit) > 1 << 20
