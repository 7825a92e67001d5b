"""The order of `ordered` as loops, over a Philox written in Python."""

from __future__ import annotations

WORD = 2**32 - 1


def philox(counter, key):
    """Philox-4x32-10: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & WORD, (a >> 32) ^ c[3] ^ k[1], a & WORD]
        k = [(k[0] + 0x9E3779B9) & WORD, (k[1] + 0xBB67AE85) & WORD]
    return c


def expected_order(n, seed, epoch):
    """The indices of n signed 64-bit keys of TensorFlow's stateless generator at (seed, epoch), low to high."""
    mixed = philox([seed & WORD, seed >> 32, epoch & WORD, epoch >> 32], [0x3EC8F720, 0x02461E29])
    keys = []
    for i in range(-(-n // 2)):
        low = i + (mixed[2] << 64) + (mixed[3] << 96)
        words = philox([low >> shift & WORD for shift in (0, 32, 64, 96)], mixed[:2])
        keys += [words[0] | words[1] << 32, words[2] | words[3] << 32]
    signed = [key - 2**64 if key >= 2**63 else key for key in keys[:n]]
    return sorted(range(n), key=lambda i: signed[i])


def expected_batches(n, batch, seed, step, epochs):
    """The batches of `epochs` iterators that begin at `step`, one list of lists an iterator."""
    steps = -(-n // batch)
    result = []
    for epoch in range(step // steps, step // steps + epochs):
        order = expected_order(n, seed, epoch)
        first = step % steps if epoch == step // steps else 0
        result.append([order[b * batch : (b + 1) * batch] for b in range(first, steps)])
    return result
