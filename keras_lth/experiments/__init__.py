"""Experiments of the papers, each a page of its own over the package's verbs."""
