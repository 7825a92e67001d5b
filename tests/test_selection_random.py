from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_lth.masks import Masks
from keras_lth.selection import random_like, uniform

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
MASKS = st.dictionaries(
    st.text(max_size=3), SHAPES.flatmap(lambda shape: hnp.arrays(np.bool_, shape)), min_size=1, max_size=4
).map(Masks)


def philox(key: int, blocks: int) -> list[int]:
    """Philox4x64-10 of Salmon et al. 2011 (Random123), counter from 1, in plain integers."""
    full = 2**64 - 1
    words = []
    for counter in range(1, blocks + 1):
        c, k0, k1 = [counter, 0, 0, 0], key & full, key >> 64
        for _ in range(10):
            a, b = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
            c = [b >> 64 ^ c[1] ^ k0, b & full, a >> 64 ^ c[3] ^ k1, a & full]
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) & full, (k1 + 0xBB67AE8584CAA73B) & full
        words += c
    return words


@pytest.mark.parametrize(("seed", "path"), [(0, "dense/kernel"), (12345678901234567890, "é"), (-1, "")])
def test_uniform_is_philox_of_the_hash(seed: int, path: str) -> None:
    key = int.from_bytes(hashlib.sha256(f"{seed}/{path}".encode()).digest()[:16], "little")
    words = philox(key, 3)
    assert uniform(seed, path, (3, 4)).reshape(-1).tolist() == [(word >> 11) / 2**53 for word in words]
    assert uniform(seed, path, (5,)).tolist() == [(word >> 11) / 2**53 for word in words[:5]]
    assert uniform(seed, path, ()).shape == () and uniform(seed, path, (0, 2)).shape == (0, 2)


def test_uniform_is_uniform_and_differs_by_seed_and_path() -> None:
    a, b, c = uniform(1, "a", (100_000,)), uniform(2, "a", (100_000,)), uniform(1, "b", (100_000,))
    for sample in (a, b, c):
        assert sample.min() >= 0 and sample.max() < 1
        # Mean 1/2 with standard error 1/√(12 n); five of them.
        assert abs(sample.mean() - 0.5) < 5 / math.sqrt(12 * 100_000)
    for x, y in ((a, b), (a, c), (b, c)):
        assert abs(np.corrcoef(x, y)[0, 1]) < 5 / math.sqrt(100_000)


@given(MASKS, st.integers())
def test_random_like_keeps_the_counts(masks: Masks, seed: int) -> None:
    layerwise = random_like(masks, seed)
    assert [row[:4] for row in layerwise.table()] == [row[:4] for row in masks.table()]
    assert layerwise == random_like(masks, seed)
    assert random_like(masks, seed, scope="global").remaining == masks.remaining


def test_random_like_is_independent_of_the_given_places() -> None:
    masks = Masks({"a": np.arange(20_000) < 4_000, "b": np.arange(20_000) < 16_000})
    other = random_like(masks, 7)
    assert [row.remaining for row in other.table()] == [4_000, 16_000]
    # Hypergeometric: of the 4,000 first places of a a share 0.2 ± 5 standard errors is drawn again.
    assert abs(other["a"][:4_000].mean() - 0.2) < 5 * math.sqrt(0.2 * 0.8 / 4_000)
    whole = random_like(masks, 7, scope="global")
    # 20,000 of 40,000: half of each layer, whatever the given proportions were.
    assert abs(whole["a"].mean() - 0.5) < 5 * math.sqrt(0.25 / 20_000) and whole.remaining == 20_000
    assert random_like(masks, 8) != other
    with pytest.raises(ValueError, match="scope"):
        random_like(masks, 7, scope="neuron")
