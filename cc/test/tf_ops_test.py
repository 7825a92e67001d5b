"""The library of TensorFlow ops that Bazel built, as TensorFlow loads it."""

import os
from pathlib import Path

import tensorflow as tf

import keras_lth
from keras_lth.ops.tensorflow import library

file = library.find(Path(keras_lth.__file__).parent)
# Not the library that pip installed.
assert file is not None and os.environ["TEST_SRCDIR"] in str(file), file
ops = tf.load_op_library(str(file))
for name in library.OPS:
    assert callable(getattr(ops, name)), name
