"""Make a colour data set of the emoji of two vendors: train on the drawings of one, test on those of the other.

The npm packages emoji-datasource-google and emoji-datasource-twitter hold the same 1 906 emoji in nine categories,
which are the classes, as PNG files of 64×64 pixels. Nothing of them comes with keras_lth:

    npm pack emoji-datasource-google@16.0.0 && mkdir google && tar xzf emoji-datasource-google-16.0.0.tgz -C google
    npm pack emoji-datasource-twitter@16.0.0 && mkdir twitter && tar xzf emoji-datasource-twitter-16.0.0.tgz -C twitter
    python scripts/emoji.py --train=google/package --test=twitter/package --out=emoji.npz

Images lie on white and are averaged over squares of pixels down to --size. The file has x_train and x_test, float32 in
[0, 1] of shape (n, size, size, 3), and y_train and y_test. The same packages give the same bytes.

The packages say that Google's images are under the Apache License 2.0 and Twitter's under CC BY 4.0; check that before
you publish images. Those of other vendors are not free, and are refused.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

VENDORS = ("google", "twitter")
# Five emoji that are parts of others, such as hair; too few for a class.
LEFT_OUT = ("Component",)


def read(folder: Path, size: int, skins: bool = False) -> tuple[np.ndarray, list[str]]:
    """Read the images of an unpacked package, float32 in [0, 1] of shape (n, size, size, 3), and their categories.

    Args:
        folder: has emoji.json and img/VENDOR/64.
        size: divides 64.
        skins: include the variations of skin, which double the number; nearly all are people.

    Raises:
        FileNotFoundError: the folder has another layout.
        ValueError: another vendor, or a size that does not divide 64.
    """
    if size < 1 or 64 % size:
        raise ValueError(f"--size must divide 64, such as 32, not {size}")
    if not (folder / "emoji.json").is_file() or not (folder / "img").is_dir():
        raise FileNotFoundError(
            f"{folder} has no emoji.json or no img: give the folder that the npm package unpacks to"
        )
    vendor = next(path.name for path in sorted((folder / "img").iterdir()) if path.is_dir())
    if vendor not in VENDORS:
        raise ValueError(f"{folder} has the images of {vendor}, which are not free: use one of {', '.join(VENDORS)}")
    images, categories = [], []
    for emoji in json.loads((folder / "emoji.json").read_text()):
        forms = [emoji, *(emoji.get("skin_variations", {}).values() if skins else ())]
        for form in forms if emoji["category"] not in LEFT_OUT else ():
            if form[f"has_img_{vendor}"]:
                images.append(picture(folder / "img" / vendor / "64" / form["image"], size))
                categories.append(emoji["category"])
    return np.array(images, np.float32), categories


def picture(path: Path, size: int) -> np.ndarray:
    """Read a PNG of 64×64 with transparency, on white, as float32 in [0, 1] of shape (size, size, 3)."""
    with Image.open(path) as file:
        pixels = np.asarray(file.convert("RGBA"), np.float64) / 255
    if pixels.shape != (64, 64, 4):
        raise ValueError(f"{path} has {pixels.shape[1]}×{pixels.shape[0]} pixels, not 64×64")
    colour = 1 - pixels[..., 3:] * (1 - pixels[..., :3])
    step = 64 // size
    return colour.reshape(size, step, size, step, 3).mean((1, 3))


def main(argv: Sequence[str] | None = None) -> None:
    """Write the file, and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="the unpacked package to train on")
    parser.add_argument("--test", type=Path, required=True, help="the unpacked package to test on")
    parser.add_argument("--out", type=Path, default=Path("emoji.npz"))
    parser.add_argument("--size", type=int, default=32, help="of the images; divides 64")
    parser.add_argument("--skins", action="store_true", help="with variations of skin: 3 781 images, 60 %% people")
    given = parser.parse_args(argv)
    try:
        parts = {part: read(getattr(given, part), given.size, given.skins) for part in ("train", "test")}
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error
    classes = sorted(set(parts["train"][1]))
    if other := set(parts["test"][1]) - set(classes):
        raise SystemExit(f"{given.test} has the category {other.pop()!r}, which {given.train} does not have")
    arrays = {}
    for part, (x, categories) in parts.items():
        arrays |= {f"x_{part}": x, f"y_{part}": np.array([classes.index(name) for name in categories], np.int32)}
    np.savez(given.out, **arrays)
    counts = ", ".join(f"{name} {parts['train'][1].count(name)}" for name in classes)
    print(f"{given.out}: {len(arrays['y_train'])} images to train on ({counts}), {len(arrays['y_test'])} to test on")


if __name__ == "__main__":
    main()
