# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---
# %% [markdown]
# # Run an experiment and read its report
#
# A plan names trainings, prunings and comparisons; a store keeps their results. This program runs IMP and its ablations
# on scikit-learn's digits, asks for one more level, and reads the numbers as pandas frames.

# %%
import os
import subprocess
import sys

from keras_lth import report

QUICK = bool(os.environ.get("KERAS_LTH_QUICK"))  # a test sets it
WORKDIR = "runs/gallery"


def ask(levels: int) -> None:
    size = f"--config.levels={levels} --config.steps={100 if QUICK else 1000} --config.replicates=1"
    command = f"{sys.executable} -m keras_lth.bin.run --config=demo --workdir={WORKDIR} {size}"
    command += " --config.jit_compile=False" if QUICK else ""
    subprocess.run(command.split(), check=True)


ask(levels=1 if QUICK else 8)

# %% [markdown]
# The same command again, with one more level, trains only that level.

# %%
ask(levels=2 if QUICK else 9)

# %% [markdown]
# `report.read` gives the rows that are ready, at any time; `report.write` makes the page, which needs no network.

# %%
results = report.read(WORKDIR)
rows = results.tables["results"]
print(rows.pivot_table(index="level", columns="arm", values="accuracy").round(3))
print(report.write(WORKDIR))
