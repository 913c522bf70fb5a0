"""Second views of a batch: what is replaced, by what, where, and how a deformation moves pixels that nobody ordered."""

import numpy as np
import pytest
import tensorflow as tf

from meta_rules import rules, stateless
from meta_rules.errors import UserError
from meta_rules.rules.views import Damage, second_view

KEYS = stateless.split(stateless.key(3), 2)
SIDE = 12


def numbered(tasks=2, batch=50, width=40):
    """A batch whose entries (task, example, input) are known by their values."""
    return tf.reshape(tf.range(tasks * batch * width, dtype=tf.float32), [tasks, batch, width])


def bumps(batch=200, seed=0):
    """Images `[1, batch, SIDE * SIDE]` of one smooth bump each, its place and height random."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    place = random.uniform(2, SIDE - 3, size=(batch, 2, 1, 1))
    height = random.uniform(0.5, 1.5, size=(batch, 1, 1))
    images = height * np.exp(-((y - place[:, 0]) ** 2 + (x - place[:, 1]) ** 2) / 4.0)
    return tf.constant(images.reshape(1, batch, -1), tf.float32), place[:, :, 0, 0]


@pytest.mark.parametrize("patches", [0.0, 0.7])
def test_a_second_view_takes_its_share_from_other_examples_entry_by_entry(patches):
    inputs, damage = numbered(), Damage(0.3, patches)
    view = second_view(inputs, damage, KEYS).numpy()
    np.testing.assert_array_equal(view % 40, inputs.numpy() % 40)
    np.testing.assert_array_equal(view // 2000, inputs.numpy() // 2000)
    # In these inputs everything varies together, so patches are whole examples: the share is right on average only.
    assert np.mean(view != inputs) == pytest.approx(0.3 * 49 / 50, abs=0.03 if not patches else 0.1)
    assert not np.array_equal(view[0], view[1] - 2000), "two tasks share their random numbers"
    np.testing.assert_array_equal(view, second_view(inputs, damage, KEYS))


def neighbours_replaced_together(patches):
    """Correlation of what is replaced between pixels side by side, and between pixels far apart."""
    inputs, _ = bumps()
    inputs += 1e-3 * tf.random.stateless_normal(inputs.shape, [1, 2])
    changed = np.asarray(second_view(inputs, Damage(0.3, patches), KEYS[:1]) != inputs, float)
    changed = changed.reshape(-1, SIDE, SIDE)

    def together(shift):
        return np.corrcoef(changed[:, :, shift:].ravel(), changed[:, :, :-shift].ravel())[0, 1]

    return together(1), together(8)


def test_what_is_replaced_comes_in_patches_of_inputs_that_vary_together():
    near, far = neighbours_replaced_together(0.7)
    assert near > 0.3 and abs(far) < 0.1
    near, far = neighbours_replaced_together(0.0)
    assert abs(near) < 0.03 and abs(far) < 0.03


def test_a_deformation_moves_what_is_there_to_the_neighbourhood_and_no_further():
    inputs, places = bumps()
    deformed = second_view(inputs, Damage(1e-9, 0.0, 2.0), KEYS[:1]).numpy().reshape(-1, SIDE, SIDE)
    y, x = np.mgrid[:SIDE, :SIDE]
    mass = np.maximum(deformed, 0.0)
    centre = np.stack([(mass * axis).sum((1, 2)) / mass.sum((1, 2)) for axis in (y, x)], axis=1)
    still = inputs.numpy().reshape(-1, SIDE, SIDE)
    before = np.stack([(still * axis).sum((1, 2)) / still.sum((1, 2)) for axis in (y, x)], axis=1)
    moved = np.linalg.norm(centre - before, axis=1)
    assert 0.1 < np.median(moved) < 2.0
    # Images of neighbouring bumps move alike: one smooth field, not noise.
    close = np.linalg.norm(places[:, None] - places[None], axis=2)
    first, second = np.nonzero((close < 1.0) & (close > 0.0))
    shift = centre - before
    assert np.corrcoef(shift[first].ravel(), shift[second].ravel())[0, 1] > 0.5


def test_deformations_do_not_depend_on_the_order_of_the_inputs():
    inputs, _ = bumps()
    order = np.random.default_rng(1).permutation(SIDE * SIDE)
    damage = Damage(1e-9, 0.0, 2.0)
    straight = second_view(inputs, damage, KEYS[:1]).numpy()[..., order]
    permuted = second_view(tf.gather(inputs, order, axis=2), damage, KEYS[:1]).numpy()
    np.testing.assert_allclose(permuted, straight, atol=1e-4)


def test_inputs_that_do_not_vary_together_are_not_deformed():
    inputs = tf.random.stateless_normal([2, 2000, 10], [1, 2])
    view = second_view(inputs, Damage(1e-9, 0.0, 2.0), KEYS)
    np.testing.assert_allclose(view, inputs, atol=1e-3)


@pytest.mark.parametrize("name", ["default", "genome"])
@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"corruption": 1.0}, "corruption must be in"),
        ({"corruption": 0.3, "patches": 1.5}, "patches must be in"),
        ({"corruption": 0.3, "deformation": -1.0}, "deformation must not be negative"),
        ({"deformation": 1.0}, "give corruption"),
    ],
)
def test_mistakes_are_one_clear_line(name, config, words):
    with pytest.raises(UserError, match=words):
        rules.make(name, **config)


@pytest.mark.parametrize("name", ["default", "genome"])
def test_a_rule_keeps_its_damage(name):
    rule = rules.make(name, corruption=0.2, patches=0.5, deformation=1.0)
    assert rules.make(name, **rule.rule_config()).damage == Damage(0.2, 0.5, 1.0)
