"""Make figures, tables and one HTML page from the rows of stores, at any time.

python -m keras_lth.bin.report --workdir=runs/lenet
python -m keras_lth.bin.report --workdir=runs/lenet,runs/resnet --out=runs/both
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import app, flags


def main(argv: Sequence[str]) -> None:
    """Write the report; print the verdicts, what is missing, and where the page is."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    given = flags.FLAGS
    if len(given.workdir) != 1 and not given.out:
        raise SystemExit(f"{len(given.workdir)} workdirs have no common folder for their report: pass --out=FOLDER.")
    from keras_lth import files, report
    from keras_lth.report import numbers
    from keras_lth.report.page import missing, sentences, write_results
    from keras_lth.tables import text_table

    try:
        results = report.read(*given.workdir)
        page = write_results(results, given.out or files.join(given.workdir[0], "report"))
    except (ValueError, OSError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    found = numbers.networks(results)
    if found is not None:
        table = numbers.verdicts(numbers.summary(found))
        print("\n".join(sentences(found)))
        if len(table):
            print(text_table([list(table.columns), *table.to_numpy().tolist()]))
    print("\n".join([*missing(results), f"{page}  figures and tables on one page"]))


def run() -> None:
    """Define the flags and run. Flags are not defined at import, so that they cannot clash with another program's."""
    flags.DEFINE_list(
        "workdir",
        None,
        "Stores, or folders with rows/*.csv; separate several with commas to combine them in one report.",
    )
    flags.DEFINE_string(
        "out",
        None,
        "The folder of the report; WORKDIR/report by default, required for several workdirs without a common folder.",
    )
    flags.mark_flag_as_required("workdir")
    app.run(main)


if __name__ == "__main__":
    run()
