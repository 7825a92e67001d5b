"""Keras callbacks: iterative magnitude pruning (``imp``), instability analysis (``instability``)."""
