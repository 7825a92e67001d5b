"""Keras callbacks: iterative magnitude pruning (``imp``), instability analysis (``instability``), moving masks
(``gradual``).
"""
