"""Rows of a run in which the findings of the thesis' chapter 4 hold: of a standard network, or of LeNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Row = dict[str, Any]
FORKS, LEVELS, REPLICATES = (0, 100, 250, 500, 1000, 2000), (1, 3, 8, 12, 16), 3
NEVER = 10**9
ALPHAS = np.linspace(0, 1, 30)
# By network and level: the step from which it is stable, and from which it matches.
STANDARD: Mapping[tuple[str, int], tuple[int, int]] = {
    ("dense", 0): (2000, 0),
    **{("imp", n): steps for n, steps in zip(LEVELS, ((1000, 0), (500, 500), (500, 500), (1000, NEVER),
                                                      (NEVER, NEVER)), strict=True)},
    **{("random_layerwise", n): steps for n, steps in zip(LEVELS, ((2000, 0), (NEVER, NEVER), (NEVER, NEVER),
                                                                   (NEVER, NEVER), (NEVER, NEVER)), strict=True)},
    ("reinit", 8): (NEVER, NEVER),
}  # fmt: skip
LENET: Mapping[tuple[str, int], tuple[int, int]] = {
    ("dense", 0): (0, 0), ("imp", 8): (0, 0), ("random_layerwise", 8): (0, NEVER), ("reinit", 8): (0, NEVER),
}  # fmt: skip


def world(kind: str = "standard", steps: Mapping[Any, tuple[int, int]] | None = None, **changed: Any) -> list[Row]:
    """All rows; ``steps`` replaces lines of the tables above, ``changed`` the numbers named below."""
    table = {**(STANDARD if kind == "standard" else LENET), **(steps or {})}
    high = changed.get("high", 0.8 if kind == "standard" else 0.004)
    rows: list[Row] = []
    for (network, level), (stable, matching) in table.items():
        for place, fork in enumerate(FORKS):
            calm, good = fork >= stable, fork >= matching
            until = FORKS.index(stable) if stable in FORKS else 2 * len(FORKS)
            barrier = 0.004 if calm else high * (until - place) / until
            error = 0.085 if good else changed.get("calm", 0.105) if calm else 0.11
            error += changed.get("baseline", 0.0) * (network in ("random_layerwise", "reinit"))
            of = {"network": network, "level": level, "fork": fork, "density": 0.8**level}
            for replicate in range(REPLICATES):
                mine = {**of, "replicate": replicate}
                shift = 0.0005 * (replicate - 1)
                for pair in ("0-1", "0-2", "1-2"):
                    for data in ("test", "train"):
                        up = barrier + changed.get("train_gap", 0.0) * (data == "train")
                        errors = error + shift + 4 * up * ALPHAS * (1 - ALPHAS)
                        apart = {"l2": 10 - changed.get("slope", 1.2) * np.log10(max(fork, 10)), "different": 800}
                        if network != "dense":
                            near = network == "imp" and calm
                            apart = {"l2": 4.0 if near else 8.0, "different": 350 if near else 1100}
                            apart = changed.get("apart", {}) if near and "apart" in changed else apart
                        else:
                            apart["different"] += changed.get("tilt", 0) * place
                        rows.append({
                            "table": "instability", **mine, "pair": pair, "data": data, "alphas": ALPHAS.tolist(),
                            "errors": errors.tolist(), "barrier": up, **apart, "cosine": apart["l2"] / 20,
                            "loss_l2": apart["different"] / 20,
                            "different_share": apart["different"] / (1700 if calm else 2200),
                        })  # fmt: skip
                        if network == "dense" and data == "test":
                            rows.append({**rows[-1], "span": "restart", "barrier": up + changed.get("longer", 0.0)})
                    for at in (2500, 3000, 4000):
                        inside = 0.004 if calm else barrier * (1 - changed.get("fall", 0.0) * at / 4000) * at / 4000
                        inside = changed.get("inside", inside)
                        rows.append({"table": "throughout", **mine, "pair": pair, "data": "test", "at": at,
                                     "barrier": inside})  # fmt: skip
                for copy in range(3):
                    # Zero training error where stable.
                    trained = changed.get("trained", 1.0) if calm else 0.95
                    rows.append({"table": "copies", **mine, "copy": copy, "accuracy": 1 - error - shift,
                                 "train_accuracy": trained})  # fmt: skip
                now = (0.9, 0.6, 0.45, 0.3, 0.27, 0.25)[place] + changed.get("raw", 0.0)
                share = 0.6 if network == "dense" else changed.get("share", 0.4) if calm else 0.8
                rows.append({
                    "table": "state", **mine, "accuracy": 1 - now, "train_accuracy": 1 - now,
                    "init_to_k": changed.get("moved", 1.0) * place, "k_to_end": 12.0 - place, "init_to_end": 13.0,
                    "between_ends": 13 * share * changed.get("close", 1.0),
                    "share_between_ends": share * changed.get("close", 1.0),
                })  # fmt: skip
    return rows
