"""A hook of mkdocs: each program of docs/gallery becomes a page and a notebook of the site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jupytext
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and notebooks."""
    for program in sorted(Path(config["docs_dir"], "gallery").glob("*.py")):
        name, notebook = f"gallery/{program.stem}", jupytext.read(program)
        notebook.metadata.pop("jupytext", None)
        heading = notebook.cells[0].source.partition("\n")[0]
        links = f"\n\n[Notebook]({program.stem}.ipynb) · [program]({program.stem}.py)\n"
        text = jupytext.writes(notebook, "md").replace(f"{heading}\n", f"{heading}{links}", 1)
        files.append(File.generated(config, f"{name}.md", content=text))
        files.append(File.generated(config, f"{name}.ipynb", content=jupytext.writes(notebook, "ipynb")))
    return files
