"""Command-line programs: flags in, an experiment or a report out."""
