"""Random numbers: the generator's published vectors, and the statistics of what is made from it."""

import numpy as np
import pytest
import tensorflow as tf

from meta_rules import stateless

# Known answers of Threefry-2x32-20 from the Random123 distribution: counter, key, output.
VECTORS = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize("counter,key,expected", VECTORS)
def test_threefry_gives_the_published_vectors(counter, key, expected):
    words = [[tf.constant([word], tf.uint32) for word in pair] for pair in (key, counter)]
    assert tuple(int(word[0]) for word in stateless.threefry(*words)) == expected


def test_streams_of_different_tasks_do_not_depend_on_their_neighbours():
    keys = stateless.split(stateless.key(5), 4)
    together = stateless.normal(keys, 9)
    for i in range(4):
        np.testing.assert_array_equal(stateless.normal(keys[i : i + 1], 9)[0], together[i])


def test_draws_have_the_moments_they_should():
    keys = stateless.split(stateless.key(1), 8)
    uniform = stateless.uniform(keys, 20000).numpy()
    normal = stateless.normal(keys, 20000).numpy()
    assert uniform.min() > 0 and uniform.max() < 1
    # Four standard errors of the mean of 160,000 draws.
    assert abs(uniform.mean() - 0.5) < 4 * (1 / 12 / uniform.size) ** 0.5
    assert abs(normal.mean()) < 4 / normal.size**0.5
    assert abs(normal.var() - 1) < 4 * (2 / normal.size) ** 0.5
    correlation = np.corrcoef(normal) - np.eye(8)
    assert np.abs(correlation).max() < 5 / 20000**0.5


def test_integers_cover_their_range_evenly():
    drawn = stateless.integers(stateless.split(stateless.key(2), 5), 10000, 7).numpy()
    counts = np.bincount(drawn.ravel(), minlength=7)
    assert len(counts) == 7
    expected = drawn.size / 7
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # chi-square, 6 degrees of freedom, p = 1e-4


def test_permutation_holds_every_number_once():
    drawn = stateless.permutation(stateless.split(stateless.key(3), 6), 50).numpy()
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.tile(np.arange(50), (6, 1)))
    assert len({tuple(row) for row in drawn}) == 6


def test_fold_depends_on_everything_folded_in_and_its_order():
    key = stateless.key(4)
    made = [
        stateless.fold(key, 1),
        stateless.fold(key, 2),
        stateless.fold(key, 1, 2),
        stateless.fold(key, 2, 1),
        stateless.fold(key, "a"),
        stateless.fold(key, "b"),
        stateless.fold(stateless.key(1 << 40), 1),
    ]
    assert len({tuple(k.numpy()) for k in made}) == len(made)


def test_compiled_and_eager_draws_agree():
    keys = stateless.split(stateless.key(6), 3)

    def draw(keys):
        return stateless.uniform(keys, 11), stateless.permutation(stateless.fold(keys, "p", 3), 12)

    for a, b in zip(draw(keys), tf.function(draw, jit_compile=True)(keys), strict=True):
        np.testing.assert_array_equal(a, b)
