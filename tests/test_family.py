"""Task families: what is drawn is what was asked for, and what must be disjoint is."""

import numpy as np
import pytest
import tensorflow as tf

from meta_rules import stateless
from meta_rules.errors import UserError
from meta_rules.tasks import sources
from meta_rules.tasks.family import TaskFamily, _distinct, class_share

KEYS = stateless.split(stateless.key(7), 6)


@pytest.fixture(scope="module")
def family():
    return TaskFamily(
        sources=("digits",), image_size=8, hidden=(6, 4), ways=4, support=3, query=5, batch_size=32
    )


@pytest.fixture(scope="module")
def pictures():
    data = sources.load("digits", "train", size=8)
    return {tuple(x.ravel()): int(y) for x, y in zip(data.examples, data.labels, strict=True)}


def original(inputs, permutation):
    """Network inputs back in pixel order, as the source has them."""
    back = np.empty_like(inputs)
    back[..., permutation] = inputs
    return np.round(back * 255).astype(np.uint8)


def test_batches_hold_pictures_of_the_task_s_classes_in_its_permutation(family, pictures):
    task = family.sample(KEYS)
    batch = family.batch(task, KEYS).numpy()
    assert batch.shape == (6, 32, 64)
    for t in range(6):
        seen = {pictures[tuple(row)] for row in original(batch[t], task.permutation[t].numpy())}
        assert seen <= set(task.classes[t].numpy()) and len(seen) == 4
    assert len({tuple(p) for p in task.permutation.numpy()}) == 6


def test_few_shot_examples_are_labelled_right_and_never_drawn_twice(family, pictures):
    task = family.sample(KEYS)
    shots = family.few_shot(task, KEYS)
    assert shots.support.shape == (6, 12, 64) and shots.query.shape == (6, 20, 64)
    for t in range(6):
        classes, drawn = task.classes[t].numpy(), []
        for inputs, labels in ((shots.support, shots.support_labels), (shots.query, shots.query_labels)):
            rows = [tuple(row) for row in original(inputs[t].numpy(), task.permutation[t].numpy())]
            assert [pictures[row] for row in rows] == list(classes[np.argmax(labels[t], axis=1)])
            drawn += rows
        assert len(set(drawn)) == len(drawn)


def test_separate_query_pictures_are_never_seen_in_batches():
    family = TaskFamily(
        sources=("digits",), image_size=8, hidden=(4,), ways=10, support=5, query=40, batch_size=4000,
        separate_query=True, permute=False,
    )  # fmt: skip
    task = family.sample(KEYS[:1])
    shots = family.few_shot(task, KEYS[:1])
    learned_from = {tuple(row) for row in family.batch(task, KEYS[:1])[0].numpy()}
    learned_from |= {tuple(row) for row in shots.support[0].numpy()}
    assert not learned_from & {tuple(row) for row in shots.query[0].numpy()}
    np.testing.assert_array_equal(task.permutation[0], np.arange(64))


def test_splits_share_no_picture():
    seen = [
        {tuple(x.ravel()) for x in sources.load("mnist_sample", split, size=14).examples}
        for split in ("train", "validation", "test")
    ]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


@pytest.mark.parametrize("classes", [10, 52])
def test_class_shares_divide_the_classes(classes):
    shares = [class_share(classes, split) for split in ("train", "validation", "test")]
    np.testing.assert_array_equal(np.sum(shares, axis=0), np.ones(classes))
    assert all(share.any() for share in shares)


def test_meta_training_and_judgement_share_no_class_no_picture_and_no_permutation():
    drawn = []
    for split, ways in (("train", 12), ("validation", 6), ("test", 6)):
        family = TaskFamily(
            sources=("glyphs?examples=20",), split=split, image_size=8, hidden=(4,), ways=ways, support=2, query=2,
            split_classes=True,
        )  # fmt: skip
        # The same keys: only the split tells the tasks apart.
        task = family.sample(stateless.split(stateless.key(4), 30))
        first = family._first.numpy()
        labels = sources.load("glyphs?examples=20", split, size=8).labels
        order = np.sort(labels)
        classes = {int(order[first[c]]) for c in task.classes.numpy().ravel()}
        pictures = {row.tobytes() for row in family._examples.numpy()}
        drawn.append((classes, pictures, {row.tobytes() for row in task.permutation.numpy()}))
    for i in range(3):
        for one, other in zip(drawn[i], drawn[(i + 1) % 3], strict=True):
            assert one and not one & other


def test_distinct_draws_are_distinct_and_even():
    keys = stateless.split(stateless.key(1), 4000)
    drawn = _distinct(keys, 5, tf.fill([4000], 7)).numpy()
    assert drawn.min() == 0 and drawn.max() == 6
    assert all(len(set(row)) == 5 for row in drawn)
    for place in range(5):
        counts = np.bincount(drawn[:, place], minlength=7)
        expected = len(drawn) / 7
        assert (
            (counts - expected) ** 2 / expected
        ).sum() < 27.9  # chi-square, 6 degrees of freedom, p = 1e-4
    exact = _distinct(keys[:3], 4, tf.fill([3], 4)).numpy()
    np.testing.assert_array_equal(np.sort(exact, axis=1), np.tile(np.arange(4), (3, 1)))


def test_several_sources_share_one_family_and_each_task_keeps_to_one():
    family = TaskFamily(
        sources=("digits", "mnist_sample"), image_size=8, hidden=(4,), ways=3, support=2, query=2
    )
    classes = family.sample(stateless.split(stateless.key(3), 40)).classes.numpy()
    from_second = classes >= 10
    assert (from_second.all(axis=1) | (~from_second).all(axis=1)).all()
    assert from_second[:, 0].any() and not from_second[:, 0].all()


@pytest.mark.parametrize(
    "change,message",
    [
        ({"ways": 11}, "ways"),
        ({"support": 500}, "support"),
        ({"horizon": (9, 3)}, "horizon"),
        ({"windows": ()}, "windows"),
    ],
)
def test_impossible_families_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        TaskFamily(**{"sources": ("digits",), "image_size": 8, "hidden": (4,), **change})


def test_compiled_and_eager_draws_agree(family):
    def draw(keys):
        task = family.sample(keys)
        return task, family.batch(task, keys), family.few_shot(task, keys)

    for a, b in zip(
        tf.nest.flatten(draw(KEYS)), tf.nest.flatten(tf.function(draw, jit_compile=True)(KEYS)), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-7)
