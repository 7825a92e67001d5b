from __future__ import annotations

import gzip
import struct
import sys

import numpy as np
import pytest

from keras_lth import datasets
from keras_lth.datasets import images
from keras_lth.datasets.idx import read_idx

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_folder(folder, *, train=7, test=3, gz=True, labels=None):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    made = {}
    for prefix, count in (("train", train), ("t10k", test)):
        pixels = rng.integers(0, 256, (count, 4, 5), dtype=np.uint8)
        classes = np.arange(count, dtype=np.uint8) % 10 if labels is None else np.asarray(labels, np.uint8)
        for name, array in ((IMAGES, pixels), (LABELS, classes)):
            data = idx_bytes(array)
            (folder / f"{prefix}-{name}{'.gz' if gz else ''}").write_bytes(gzip.compress(data) if gz else data)
        made[prefix] = (pixels, classes)
    return made


def assert_is(splits, made):
    for (x, y), (pixels, classes) in zip((splits.train, splits.test), (made["train"], made["t10k"]), strict=True):
        assert x.dtype == np.float32
        assert y.dtype == np.int32
        np.testing.assert_array_equal(x, pixels[..., None].astype(np.float32) / np.float32(255))
        np.testing.assert_array_equal(y, classes)
    assert splits.classes == 10


def test_digits_are_1797_images_of_17_levels_144_of_each_class_in_training():
    (x, y), (x_test, y_test), classes = datasets.load("digits")
    assert (x.shape, x_test.shape, classes) == ((1440, 8, 8, 1), (357, 8, 8, 1), 10)
    assert (x.dtype, y.dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(np.bincount(y), np.full(10, 144))
    # UCI lists 178 182 177 183 181 182 181 179 174 180 examples of the classes 0 to 9.
    np.testing.assert_array_equal(
        np.bincount(y_test), np.array([178, 182, 177, 183, 181, 182, 181, 179, 174, 180]) - 144
    )
    np.testing.assert_array_equal(np.unique(x), np.arange(17, dtype=np.float32) / 16)


def test_digits_split_is_the_stated_rule():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    seen = dict.fromkeys(range(10), 0)
    total = np.bincount(bunch.target)
    test = []
    for image, label in zip(bunch.images, bunch.target, strict=True):
        c, i = total[label], seen[label]
        t = c - 144
        if (i + 1) * t // c > i * t // c:
            test.append(image / 16)
        seen[label] += 1
    np.testing.assert_array_equal(datasets.digits().test[0][..., 0], np.array(test, np.float32))


@pytest.mark.parametrize("gz", [True, False])
def test_fashion_mnist_reads_a_folder(tmp_path, gz):
    made = write_folder(tmp_path, gz=gz)
    assert_is(datasets.fashion_mnist(folder=tmp_path), made)
    assert_is(datasets.load("mnist", folder=str(tmp_path)), made)


def test_places_are_asked_in_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    debian = write_folder(tmp_path / "debian", train=5)
    monkeypatch.delenv("KERAS_LTH_DATA", raising=False)
    assert_is(datasets.fashion_mnist(), debian)
    monkeypatch.setenv("KERAS_LTH_DATA", str(tmp_path / "mine"))
    assert_is(datasets.fashion_mnist(), debian)
    hyphen = write_folder(tmp_path / "mine" / "fashion-mnist", train=6)
    assert_is(datasets.fashion_mnist(), hyphen)
    assert_is(datasets.fashion_mnist(tmp_path / "debian"), debian)
    mnist = write_folder(tmp_path / "mine" / "mnist", train=9)
    assert_is(datasets.mnist(), mnist)


def test_without_data_the_error_says_every_way(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    monkeypatch.setenv("KERAS_LTH_DATA", str(tmp_path / "mine"))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(FileNotFoundError) as caught:
        datasets.fashion_mnist()
    for part in ("dataset-fashion-mnist", "$KERAS_LTH_DATA/fashion_mnist", "folder=", "keras_lth[tfds]", str(tmp_path)):
        assert part in str(caught.value)
    monkeypatch.delenv("KERAS_LTH_DATA")
    with pytest.raises(FileNotFoundError, match=r"mnist.*not set.*KERAS_LTH_DATA/mnist.*keras_lth\[tfds\]") as caught:
        datasets.mnist()
    assert len(str(caught.value)) < 300
    with pytest.raises(ModuleNotFoundError, match=r"keras_lth\[tfds\]'; without a network there are digits") as caught:
        datasets.load("cifar10")
    assert "\n" not in str(caught.value)


def test_a_tfds_that_does_not_import_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", type(sys)("tensorflow_datasets"))
    with pytest.raises(ImportError, match=r"'tensorflow-metadata<1\.18'; without a network there are digits") as caught:
        datasets.load("cifar10")
    assert "\n" not in str(caught.value)


def test_without_a_network_the_error_says_what_to_copy(tmp_path, monkeypatch):
    import tensorflow_datasets

    def fails(*_, **__):
        raise OSError("HTTPSConnectionPool: Max retries exceeded\n" + 50 * "again, ")

    monkeypatch.setattr(tensorflow_datasets.core.DatasetBuilder, "download_and_prepare", fails)
    for ask in (datasets.tfds, datasets.tfds_files):
        with pytest.raises(FileNotFoundError) as caught:
            ask("cifar10", folder=tmp_path)
        said = str(caught.value)
        assert str(tmp_path / "cifar10") in said and "digits" in said and "\n" not in said and len(said) < 700
    monkeypatch.setenv("KERAS_LTH_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"mnist.*Max retries.*KERAS_LTH_DATA/mnist.*network") as caught:
        datasets.mnist()
    said = str(caught.value)
    assert "pip install" not in said and "\n" not in said and len(said) < 600


def test_arrays_and_files_of_ones_own(tmp_path):
    x, y = np.arange(24).reshape(6, 4), np.array([0, 1, 2, 0, 1, 3])
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    for splits in (datasets.load(str(tmp_path / "a.npz")), datasets.from_arrays(x, y.tolist(), x[:2], y[:2])):
        (mine, labels), (test, _), classes = splits
        assert (mine.dtype, labels.dtype, classes, len(test)) == (np.float32, np.int32, 4, 2)
        np.testing.assert_array_equal(mine, x)
    with pytest.raises(ValueError, match=r"x_test \(2, 3\)"):
        datasets.from_arrays(x, y, x[:2, :3], y[:2])


def test_a_given_folder_must_hold_the_files(tmp_path):
    write_folder(tmp_path)
    (tmp_path / f"t10k-{LABELS}.gz").unlink()
    with pytest.raises(FileNotFoundError, match=f"t10k-{LABELS}"):
        datasets.fashion_mnist(tmp_path)


def test_images_and_labels_must_match(tmp_path):
    write_folder(tmp_path, train=4, test=4, labels=[0, 1, 2])
    with pytest.raises(ValueError, match=f"train-{IMAGES} has 4 images, train-{LABELS} 3 labels"):
        datasets.fashion_mnist(tmp_path)
    write_folder(tmp_path, train=3, test=3, labels=[0, 1, 10])
    with pytest.raises(ValueError, match="label 10"):
        datasets.fashion_mnist(tmp_path)


@pytest.mark.parametrize("gz", [True, False])
def test_every_truncation_of_an_idx_file_is_refused(tmp_path, gz):
    array = np.arange(24).reshape(2, 3, 4)
    whole = gzip.compress(idx_bytes(array)) if gz else idx_bytes(array)
    path = tmp_path / ("a.gz" if gz else "a")
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_idx(path, axes=3), array)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=str(path)):
            read_idx(path, axes=3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (idx_bytes(np.zeros((2, 3))), "not IDX with 3 axes"),
        (b"\0\0\x0d" + idx_bytes(np.zeros((2, 3, 4)))[3:], "begins 00000d03, not 00000803"),
        (idx_bytes(np.zeros((2, 3, 4))) + b"\0", "holds 25"),
        (struct.pack(">I3I", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1), "holds 0"),
        (b"GIF89a" + bytes(20), "not IDX"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(tmp_path, data, reason):
    path = tmp_path / "bad-idx3-ubyte"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=reason) as caught:
        read_idx(path, axes=3)
    assert str(path) in str(caught.value)


def test_damaged_gzip_is_refused(tmp_path):
    path = tmp_path / "bad.gz"
    path.write_bytes(b"not gzip at all, but long enough")
    with pytest.raises(ValueError, match="damaged gzip"):
        read_idx(path, axes=3)


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("mnist", (28, 28, 1), 10), ("cifar100", (32, 32, 3), 100), ("svhn", (32, 32, 3), 10)],
)
def test_tfds_names(monkeypatch, name, shape, classes):
    import tensorflow_datasets

    monkeypatch.delenv("KERAS_LTH_DATA", raising=False)
    with tensorflow_datasets.testing.mock_data(num_examples=6):
        splits = datasets.load(name)
        again = datasets.load(name)
    for x, y in (splits.train, splits.test):
        assert (x.shape, x.dtype, y.shape, y.dtype) == ((6, *shape), np.float32, (6,), np.int32)
        assert x.min() >= 0
        assert 0.9 < x.max() <= 1  # thousands of uniform random bytes
        np.testing.assert_allclose(x * 255, np.round(x * 255), atol=1e-4)
        assert 0 <= y.min() <= y.max() < classes
    np.testing.assert_array_equal(splits.train[0], again.train[0])
    assert splits.classes == classes


class Splitted:
    """A builder of TFDS after preparation, with the splits given."""

    def __init__(self, builder, splits):
        self.name = builder.name
        self.info = type("Info", (), {"features": builder.info.features, "splits": dict.fromkeys(splits)})
        self.asked = []

    def download_and_prepare(self):
        pass

    def as_dataset(self, split, **_):
        import tensorflow as tf

        self.asked.append(split)
        count = 0 if split == "train[:0]" else 5
        images = tf.range(count * 32 * 32 * 3) % 256
        examples = {"image": tf.cast(tf.reshape(images, (count, 32, 32, 3)), tf.uint8), "label": tf.range(count)}
        return tf.data.Dataset.from_tensor_slices(examples).batch(2)


@pytest.mark.parametrize(
    ("splits", "asked"), [(["train", "test", "validation"], "test"), (["train", "validation"], "validation")]
)
def test_tfds_takes_test_or_else_validation(monkeypatch, splits, asked):
    import tensorflow_datasets

    builder = Splitted(tensorflow_datasets.builder("cifar10"), splits)
    monkeypatch.setattr(tensorflow_datasets, "builder", lambda *_, **__: builder)
    (x, y), *_ = datasets.tfds("cifar10", train="train[:90%]")
    np.testing.assert_array_equal(x.ravel() * 255, np.arange(5 * 3072) % 256)
    np.testing.assert_array_equal(y, np.arange(5))
    assert builder.asked == ["train[:90%]", asked]
    with pytest.raises(ValueError, match=rf"no split 'training'; it has {', '.join(splits)}"):
        datasets.tfds("cifar10", train="training")
    with pytest.raises(ValueError, match=r"no example in split 'train\[:0\]'"):
        datasets.tfds("cifar10", train="train[:0]")


def test_tfds_refuses_what_it_cannot_give():
    with pytest.raises(ValueError, match="images of one size"):
        datasets.tfds("cats_vs_dogs")
    with pytest.raises(ValueError, match="not an image classification"):
        datasets.tfds("iris")
    with pytest.raises(ValueError, match="no data set is called 'fashion_minst'"):
        datasets.load("fashion_minst")
