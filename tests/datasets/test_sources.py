"""Record files as TFDS writes them, and folders of images: what is read, decoded and shared among hosts."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_lth.datasets import CentreCrop, RandomResizedCrop, from_files, tfds, tfds_files, tiny_imagenet
from keras_lth.datasets.files import order_key
from keras_lth.datasets.sources import RecordFiles
from tests.datasets.reference_order import expected_order

N = 37


def picture(i):
    return ((np.arange(60, dtype=np.uint8) * 3 + i * 2) % 251).reshape(4, 5, 3)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data set of TFDS prepared on disk: 37 images to train on in 5 TFRecord files, 6 to test on."""
    import tensorflow_datasets as t

    class LotteryPictures(t.core.GeneratorBasedBuilder):
        VERSION = t.core.Version("1.0.0")

        def _info(self):
            features = {"image": t.features.Image(shape=(4, 5, 3), encoding_format="png"),
                        "label": t.features.ClassLabel(num_classes=N)}  # fmt: skip
            return t.core.DatasetInfo(builder=self, features=t.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self.examples(N), "test": self.examples(6)}

        def examples(self, count):
            for i in range(count):
                yield f"{i:03d}", {"image": picture(i), "label": i}

        def _generate_examples(self):  # TFDS asks for it, though the splits above are generators of their own
            raise AssertionError("the splits are made of examples()")

    folder = tmp_path_factory.mktemp("tfds")
    options = t.download.DownloadConfig(num_shards=5)
    LotteryPictures(data_dir=str(folder)).download_and_prepare(download_config=options)
    return folder


def streamed(source, **options):
    return from_files(source, **{"batch_size": 4, "seed": 3, "window": 8, **options})


def labels(stream):
    return [int(y) for _, batch in stream.as_numpy_iterator() for y in batch]


# --- record files ------------------------------------------------------------------------------------------------


def test_tfds_files_hold_what_tfds_gives(prepared):
    source = tfds_files("lottery_pictures", folder=prepared)
    assert (len(source.paths), int(source.takes.sum()), source.count(0, 1)) == (5, N, N)
    (x, y), (x_test, y_test), classes = tfds("lottery_pictures", folder=prepared)
    assert classes == N
    data = streamed(source, shuffle=False)
    got = [np.concatenate(part) for part in zip(*data.stream(0).as_numpy_iterator(), strict=True)]
    np.testing.assert_array_equal(got[0], x)
    np.testing.assert_array_equal(got[1], y)
    assert (got[0].dtype, got[1].dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(got[0], [picture(i).astype(np.float32) / 255 for i in y])
    test = streamed(tfds_files("lottery_pictures", "test", folder=prepared), shuffle=False)
    assert labels(test.stream(0)) == y_test.tolist()
    assert len(x_test) == 6


def test_slices_of_splits_are_read_from_their_places(prepared):
    whole, part = (
        labels(streamed(tfds_files("lottery_pictures", split, folder=prepared), shuffle=False).stream(0))
        for split in ("train", "train[20%:80%]")
    )
    assert part == whole[7:30]


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_share_the_files(prepared, hosts):
    source = tfds_files("lottery_pictures", folder=prepared)
    data = streamed(source)
    # 37 examples in 5 files: two hosts would have 21 and 16 of them, so each reads all files.
    assert source.whole_files(hosts) == (hosts == 1)
    counts = [source.count(host, hosts) for host in range(hosts)]
    assert (sum(counts), max(counts) - min(counts) <= 1) == (N, True)
    for epoch in range(2):
        seen = [y for host in range(hosts) for y in labels(data.stream(epoch, hosts=hosts, host=host))]
        assert len(set(seen)) == len(seen) == 36


def test_hosts_have_files_of_their_own_where_these_are_alike(prepared):
    files = tfds_files("lottery_pictures", folder=prepared)
    paths = list(zip(files.paths.tolist(), files.skips.tolist(), [7, 7, 7, 7], strict=False))
    source = RecordFiles(paths, files.decode)
    assert source.whole_files(2)
    assert not source.whole_files(3)
    identities = [{int(i) for i, _ in source.records(host, 2, 5).as_numpy_iterator()} for host in range(2)]
    assert identities == [{*range(7), *range(14, 21)}, {*range(7, 14), *range(21, 28)}]
    unequal = RecordFiles([("a", 0, 49), ("b", 0, 51), ("c", 0, 1)], files.decode)
    assert (unequal.whole_files(2), unequal.count(0, 2), unequal.count(1, 2)) == (True, 50, 51)


def test_files_are_shuffled_then_read_in_turn(prepared):
    source = tfds_files("lottery_pictures", folder=prepared)
    key = order_key(3, 0, 0)
    # A file holds fewer records than are taken at a time: they come file by file, in the order of the key.
    expected = [int(source.begins[f]) + i for f in expected_order(5, key, 0) for i in range(source.takes[f])]
    got = [int(identity) for identity, _ in source.records(0, 1, key).as_numpy_iterator()]
    assert got == expected
    assert got != [int(identity) for identity, _ in source.records(0, 1, order_key(3, 1, 0)).as_numpy_iterator()]


def test_long_files_are_mixed(tmp_path):
    files = []
    for f in range(3):
        with tf.io.TFRecordWriter(str(tmp_path / str(f))) as writer:
            for i in range(40):
                writer.write(str(100 * f + i).encode())
        files.append((str(tmp_path / str(f)), 0, 40))
    source = RecordFiles(files, lambda record: (tf.strings.to_number(record), record))
    order = expected_order(3, 9, 0)
    expected = [100 * f + i for begin in (0, 16, 32) for f in order for i in range(begin, min(begin + 16, 40))]
    assert [int(record) for _, record in source.records(0, 1, 9).as_numpy_iterator()] == expected


@pytest.mark.parametrize("first", [0, 3, 8])
def test_a_resumed_stream_of_files_is_the_tail_of_the_whole(prepared, first):
    data = streamed(tfds_files("lottery_pictures", folder=prepared), augment=[RandomResizedCrop(4), "flip"])
    whole, tail = ([(x.tobytes(), y.tolist()) for x, y in data.stream(1, first=f).as_numpy_iterator()]
                   for f in (0, first))  # fmt: skip
    assert len(whole) == 9
    assert tail == whole[first:]


def test_imagenet_is_evaluated_at_the_centre(prepared):
    data = streamed(tfds_files("lottery_pictures", folder=prepared), shuffle=False, augment=CentreCrop(2, 4))
    x, y = next(data.stream(0).as_numpy_iterator())
    # The shorter side is 4 already: the middle 2×2 of columns 1.5 and 2.5, between two pixels each.
    for image, i in zip(x, y, strict=True):
        pixels = picture(i) / np.float32(255)
        np.testing.assert_allclose(image, (pixels[1:3, 1:3] + pixels[1:3, 2:4]) / 2, atol=1e-6)


def test_what_tfds_cannot_give_is_named(prepared):
    with pytest.raises(ValueError, match="no data set is called 'lotery'"):
        tfds_files("lotery", folder=prepared)
    with pytest.raises(ValueError, match="no split 'valid'; it has"):
        tfds_files("lottery_pictures", "valid", folder=prepared)
    with pytest.raises(ValueError, match="examples and decode are for functions; RecordFiles"):
        streamed(tfds_files("lottery_pictures", folder=prepared), examples=3)


# --- folders of images -------------------------------------------------------------------------------------------


def write_tiny_imagenet(folder):
    made = {}
    rng = np.random.default_rng(0)

    def write(path, channels=3):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (64, 64, channels), dtype=np.uint8)
        path.write_bytes(tf.io.encode_jpeg(pixels, quality=95).numpy())
        made[str(path)] = tf.io.decode_jpeg(path.read_bytes(), channels=3).numpy().astype(np.float32) / 255

    for name in ("n02", "n01", "n03"):
        for i in range(4):
            write(folder / "train" / name / "images" / f"{name}_{i}.JPEG", channels=1 if i == 2 else 3)
    (folder / "train" / "n01" / "n01_boxes.txt").write_text("n01_0.JPEG\t0\t0\t62\t62\n")
    for i in range(2):
        write(folder / "val" / "images" / f"val_{i}.JPEG")
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn03\t0\t0\t1\t1\nval_1.JPEG\tn01\t0\t0\t1\t1\n")
    return made


def only_batch(source, size):
    return next(from_files(source, batch_size=size, seed=0, shuffle=False).stream(0).as_numpy_iterator())


def test_tiny_imagenet_is_read_as_its_archive_unpacks(tmp_path):
    made = write_tiny_imagenet(tmp_path)
    x, y = only_batch(tiny_imagenet(tmp_path), 12)
    np.testing.assert_array_equal(y, [0] * 4 + [1] * 4 + [2] * 4)
    paths = [str(tmp_path / "train" / n / "images" / f"{n}_{i}.JPEG") for n in ("n01", "n02", "n03") for i in range(4)]
    np.testing.assert_array_equal(x, [made[path] for path in paths])
    x, y = only_batch(tiny_imagenet(tmp_path, "val"), 2)
    np.testing.assert_array_equal(y, [2, 0])
    np.testing.assert_array_equal(x, [made[str(tmp_path / "val" / "images" / f"val_{i}.JPEG")] for i in range(2)])


@pytest.mark.parametrize("hosts", [1, 2])
def test_single_images_are_permuted_whatever_the_window(tmp_path, hosts):
    write_tiny_imagenet(tmp_path)
    source = tiny_imagenet(tmp_path)
    data = from_files(source, batch_size=4, seed=1, window=1)
    for host in range(hosts):
        mine = list(range(12))[host::hosts]
        order = [mine[i] for i in expected_order(len(mine), order_key(1, 0, host), 0)]
        assert labels(data.stream(0, hosts=hosts, host=host)) == [i // 4 for i in order]


def test_a_folder_that_is_no_tiny_imagenet_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder train"):
        tiny_imagenet(tmp_path)
    (tmp_path / "train" / "n01").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no images of split 'train'"):
        tiny_imagenet(tmp_path)
    with pytest.raises(FileNotFoundError, match="val_annotations"):
        tiny_imagenet(tmp_path, "val")
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn09\t0\t0\t1\t1\n")
    with pytest.raises(ValueError, match="names 'n09', which is not a folder of train"):
        tiny_imagenet(tmp_path, "val")
    with pytest.raises(ValueError, match="'train' or 'val', got 'test'"):
        tiny_imagenet(tmp_path, "test")
