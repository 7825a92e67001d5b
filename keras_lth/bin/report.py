"""Makes the figures, the tables and the page of a run.

python -m keras_lth.bin.report --workdir=runs/lenet
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import app, flags


def main(argv: Sequence[str]) -> None:
    """Write ``WORKDIR/report`` and print where, and what the curves say."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    from keras_lth import report

    workdir = flags.FLAGS.workdir
    try:
        page = report.write(workdir)
        said = report.findings(report.read(workdir))
    except (ValueError, OSError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    print("\n".join([*said, "", f"{page}  figures and table on one page"]))


def run() -> None:
    """Define the flag and run; not at import, so that this module and another program's flags can meet."""
    flags.DEFINE_string("workdir", None, "The folder of a finished or running experiment.")
    flags.mark_flag_as_required("workdir")
    app.run(main)


if __name__ == "__main__":
    run()
