"""Seeds for the parts of an experiment, each a function of one seed and of its purpose."""

from __future__ import annotations

import hashlib


def seed_of(seed: int, *what: object) -> int:
    """Derive 31 bits from SHA-256 of "seed/what/…": the same on every machine and in every version of the package.

    Example: ``seed_of(1, "init", 0)`` for the initial values of replicate 0.
    """
    text = "/".join(str(part) for part in (seed, *what))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little") & 0x7FFFFFFF
