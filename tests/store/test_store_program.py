"""``python -m keras_lth.bin.store``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from keras_lth.plans import run
from keras_lth.store import Store
from tests.plans import toy


def program(folder: Any, *flags: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "keras_lth.bin.store", f"--workdir={folder}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_program(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    assert program(folder)[0] == 1 and "FileNotFoundError" in program(folder)[1] and not folder.exists()
    run({"imp": toy.imp, "instability": toy.instability}, folder, say=lambda text: None)
    store = Store(folder)
    names = store.names()
    code, said = program(folder)
    assert code == 0 and all(name in said for name in names) and "arm=imp replicate=0 level=3" in said
    assert program(folder, "--check") == (0, f"{len(names)} values, 0 damaged\n")
    code, said = program(folder, "--thin")
    assert code == 0 and "--yes" in said and store.names() == names
    assert program(folder, "--thin", "--yes")[0] == 0
    assert {name.split("-")[0] for name in store.names()} == {"full", "cut", "evaluate", "compare"}
    copied = Store(tmp_path / "copy")
    assert program(folder, f"--copy_to={copied.folder}")[0] == 0 and copied.names() == store.names()
    assert "plan instability: " in program(folder)[1]
    assert "nothing" in program(folder, "--forget=nothing")[1] and "--yes" in program(folder, "--forget=instability")[1]
    assert "instability" in store.plans() and program(folder, "--forget=instability", "--yes")[0] == 0
    assert set(store.plans()) == {"imp"}
    code, said = program(folder, "--sweep", "--yes")
    assert code == 0 and not [name for name in store.names() if name.startswith("compare")]
    path = folder / "values" / f"{next(iter(store.names()))}.value"
    path.write_bytes(path.read_bytes()[:-1])
    code, said = program(folder, "--check")
    assert code == 1 and path.stem in said and "1 damaged" in said
