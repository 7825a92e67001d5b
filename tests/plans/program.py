"""``python -m tests.plans.program FOLDER [SLEEP]``: the toy's IMP of two replicates on a store, as a user starts it."""

from __future__ import annotations

import sys
from functools import partial

from keras_lth.plans import run
from tests.plans import toy

if __name__ == "__main__":
    folder, sleep = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    print(run(partial(toy.imps, sleep=sleep), folder, commit_every=0, workers=int((sys.argv[3:] or ["1"])[0])))
