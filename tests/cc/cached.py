"""Object files that are compiled once for each state of the sources, whatever run of the tests asks for them."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

from cc.programs import ROOT, Build, run

# Outside of git, as all that is built.
FOLDER = ROOT / "build" / "sanitized"


@cache
def _shared(compiler: str) -> bytes:
    """What every object depends on: the compiler, and all headers."""
    digest = hashlib.sha256(run(compiler, "--version").encode())
    for path in sorted(path for pattern in ("*.h", "*.inc") for path in (ROOT / "cc").rglob(pattern)):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.digest()


class CachedBuild(Build):
    """A Build that keeps objects in FOLDER, under a digest of the source, all headers, the flags and the compiler."""

    def _object(self, source: Path) -> Path:
        words = self.words(source)
        digest = hashlib.sha256(_shared(self.compiler) + "\0".join(words).encode() + source.read_bytes()).hexdigest()
        kind = hashlib.sha256("\0".join(words).encode()).hexdigest()[:8]
        name = f"{source.parent.name}_{source.stem}-{kind}-"
        kept = FOLDER / f"{name}{digest[:32]}.o"
        if not kept.exists():
            made = super()._object(source)
            FOLDER.mkdir(parents=True, exist_ok=True)
            for earlier in FOLDER.glob(f"{name}*.o"):
                earlier.unlink(missing_ok=True)
            # Whole or absent, also where two runs make it at once.
            beside = FOLDER / f"{kept.name}.{os.getpid()}"
            beside.write_bytes(made.read_bytes())
            beside.replace(kept)
        return kept
