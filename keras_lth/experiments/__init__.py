"""Experiments of the papers, one page each, written with the package's verbs."""
