"""The emoji data set, made of two packages with three tiny drawings each."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keras_lth import datasets
from tests.scripts.cloud import ROOT

SCRIPT: Any = runpy.run_path(str(ROOT / "scripts" / "emoji.py"))
EMOJI = {"face": "Smileys & Emotion", "flag": "Flags", "hair": "Component"}


def package(folder: Path, vendor: str, colours: dict[str, tuple[int, ...]], size: int = 64) -> Path:
    images = folder / "img" / vendor / "64"
    images.mkdir(parents=True)
    listed = []
    for name, colour in colours.items():
        pixels = np.zeros((size, size, 4), np.uint8)
        pixels[: size // 2] = colour  # the lower half is transparent
        Image.fromarray(pixels).save(images / f"{name}.png")
        listed.append({"image": f"{name}.png", "category": EMOJI[name], f"has_img_{vendor}": name != "lost"})
    listed[0]["skin_variations"] = {"1F3FB": {"image": "face.png", f"has_img_{vendor}": True}}
    (folder / "emoji.json").write_text(json.dumps(listed))
    return folder


COLOURS = {"face": (255, 0, 0, 255), "flag": (0, 0, 255, 51), "hair": (0, 0, 0, 255)}


def test_the_file_is_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [package(tmp_path / vendor, vendor, COLOURS) for vendor in ("google", "twitter")]
    out = tmp_path / "emoji.npz"
    SCRIPT["main"]([f"--train={folders[0]}", f"--test={folders[1]}", f"--out={out}", "--size=4"])
    assert "2 images to train on (Flags 1, Smileys & Emotion 1)" in capsys.readouterr().out
    splits = datasets.load(str(out))
    for x, y in (splits.train, splits.test):
        assert (x.shape, y.tolist(), splits.classes) == ((2, 4, 4, 3), [1, 0], 2)
        # Red; blue that is opaque to a fifth, on white; below both white.
        np.testing.assert_allclose(x[0, 0, 0], [1, 0, 0])
        np.testing.assert_allclose(x[1, 1, 3], [0.8, 0.8, 1], rtol=1e-6)
        np.testing.assert_array_equal(x[:, 2:], 1)
    before = out.read_bytes()
    SCRIPT["main"]([f"--train={folders[0]}", f"--test={folders[1]}", f"--out={out}", "--size=4"])
    assert out.read_bytes() == before
    SCRIPT["main"]([f"--train={folders[0]}", f"--test={folders[1]}", f"--out={out}", "--size=4", "--skins"])
    assert len(datasets.load(str(out)).train[1]) == 3


@pytest.mark.parametrize(
    ("vendor", "flags", "said"),
    [
        ("apple", [], "apple.*google, twitter"),
        ("google", ["--size=20"], "divide 64.*20"),
        ("google", ["--test=nowhere"], "nowhere.*npm package"),
    ],
)
def test_what_it_refuses(vendor: str, flags: list[str], said: str, tmp_path: Path) -> None:
    folder = package(tmp_path / "a", vendor, COLOURS)
    with pytest.raises(SystemExit, match=said):
        SCRIPT["main"]([f"--train={folder}", f"--test={folder}", f"--out={tmp_path / 'x.npz'}", *flags])
    with pytest.raises(SystemExit, match="not 64×64"):
        small = package(tmp_path / "b", "google", COLOURS, size=32)
        SCRIPT["main"]([f"--train={small}", f"--test={small}", f"--out={tmp_path / 'x.npz'}"])
