"""The package that Bazel built, as Python uses it."""

import os

import numpy as np

from keras_lth import _core, ops
from keras_lth.configs import demo
from keras_lth.ops import reference

# Not the module that pip installed.
assert os.environ["TEST_SRCDIR"] in _core.__file__, _core.__file__

random = np.random.default_rng(0)
weights = [random.normal(size=shape).astype(np.float32) for shape in [(300, 100), (7,), (100, 10)]]
for isa in _core.supported():
    os.environ["KERAS_LTH_ISA"] = isa
    assert _core.chosen() == isa
    for k in (0, 1, 5000, 31007):
        masks = ops.top_k_masks(weights, k)
        for mask, expected in zip(masks, reference.top_k_masks(weights, k), strict=True):
            np.testing.assert_array_equal(mask, expected)
        assert sum(int(mask.sum()) for mask in masks) == k

# The settings lie in another folder of the source tree.
assert os.environ["TEST_SRCDIR"] in demo.__file__ and demo.get_config().data == "digits"
