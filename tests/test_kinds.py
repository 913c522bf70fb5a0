"""How many kinds a batch seems to hold: the two signals against NumPy and closed forms, and what depends on them."""

import numpy as np
import pytest
import tensorflow as tf

from meta_rules import rules, stateless
from meta_rules.networks import BaseNetwork
from meta_rules.rules import kinds
from meta_rules.rules.base import per_task

TWO_VIEWS = {
    "planes": ("learned", "consistency"),
    "corruption": 0.3,
    "directions": 0.5,
    "feedback": "symmetric",
}


def classes(number, spread=1.5, dimensions=30, batch=256, seed=0):
    """`[1, batch, dimensions]` of `number` equally likely Gaussian classes, every input of unit variance."""
    random = np.random.default_rng(seed)
    centres = spread * random.normal(size=(number, dimensions))
    examples = centres[random.integers(number, size=batch)] + random.normal(size=(batch, dimensions))
    return ((examples - examples.mean(0)) / examples.std(0))[None].astype(np.float32)


def test_signals_are_what_a_loop_over_pairs_finds():
    inputs = classes(4, batch=40, dimensions=6)
    unit = inputs[0] / np.linalg.norm(inputs[0], axis=1, keepdims=True)
    pairs = [unit[i] @ unit[j] for i in range(40) for j in range(40) if i != j]
    near, narrow = np.log([np.mean(np.greater(pairs, 0.5)) + 1e-3, np.mean(np.square(pairs)) + 1e-3])
    near, narrow = np.tanh([(near + 4.5) / 2, (narrow + 3.0) / 2])
    np.testing.assert_allclose(
        kinds.signals(tf.constant(inputs))[0], [4 * (near - narrow - 0.2), narrow], rtol=1e-3
    )


@pytest.mark.parametrize("dimensions", [5, 40])
def test_narrowness_of_a_cloud_is_one_over_its_dimensions(dimensions):
    cloud = np.random.default_rng(1).normal(size=(1, 512, dimensions)).astype(np.float32)
    narrow = 2 * np.arctanh(kinds.signals(tf.constant(cloud))[0, 1]) - 3.0
    assert np.exp(narrow) == pytest.approx(1 / dimensions + 1e-3, rel=0.05)


def test_the_excess_of_near_pairs_falls_as_classes_become_many():
    excess = {
        n: np.mean([kinds.signals(tf.constant(classes(n, seed=s)))[0, 0] for s in range(3)])
        for n in (20, 50, 100)
    }
    assert excess[20] > excess[50] + 0.3 > excess[100] + 0.6


def test_signals_do_not_depend_on_the_order_of_examples_or_inputs_and_are_each_tasks_own():
    both = np.concatenate([classes(3), classes(60, seed=1)])
    random = np.random.default_rng(2)
    shuffled = both[:, random.permutation(256)][:, :, random.permutation(30)]
    found = kinds.signals(tf.constant(both))
    np.testing.assert_allclose(found, kinds.signals(tf.constant(shuffled)), atol=1e-5)
    np.testing.assert_allclose(found[1:], kinds.signals(tf.constant(both[1:])), atol=1e-5)


@pytest.mark.parametrize("inputs", [np.zeros((1, 8, 3)), np.ones((1, 1, 3)), np.ones((1, 8, 3))])
def test_examples_that_are_all_alike_or_alone_have_finite_signals(inputs):
    assert np.isfinite(kinds.signals(tf.constant(inputs, tf.float32))).all()


def learned(rule, inputs):
    """Kernels and biases of a network after two applications to the same batch, in one list."""
    network = BaseNetwork((inputs.shape[2], 9, 6), linear_top=rule.linear_top)
    keys = stateless.split(stateless.key(3), len(inputs))
    state = rule.initial_state(network.layer_sizes, keys)
    for _ in range(2):
        state = rule(state, tf.constant(inputs), network=network, keys=keys)
    return [*state.kernels, *state.biases]


@pytest.mark.parametrize("moved", ["planes", "bias_step", "readout/bias", "consistency/temperature"])
def test_the_default_rule_is_the_one_that_its_kinds_parameters_make_of_it_for_the_batch(moved):
    plain = rules.make("default", **TWO_VIEWS)
    rule = rules.make("default", kinds=True, **TWO_VIEWS)
    theta = plain.theta() | {"readout/bias": tf.ones([plain.hidden, 1])}
    theta["bias_step"] = tf.constant(-2.0)
    plain.assign(theta)
    unmoved = {
        name: tf.zeros_like(value) for name, value in rule.theta().items() if name.startswith("kinds/")
    }
    rule.assign(theta | unmoved)
    batch = classes(10, batch=32, dimensions=7)
    before = learned(plain, batch)
    for found, same in zip(learned(rule, batch), before, strict=True):
        np.testing.assert_allclose(found, same, atol=1e-6)
    # By hand to where the signals of this batch move it.
    moves = np.random.default_rng(5).normal(size=(2, *theta[moved].shape)).astype(np.float32)
    rule.assign(theta | unmoved | {f"kinds/{moved}": moves})
    plain.assign(theta | {moved: theta[moved] + np.tensordot(kinds.signals(tf.constant(batch))[0], moves, 1)})
    after = learned(plain, batch)
    for found, same in zip(learned(rule, batch), after, strict=True):
        np.testing.assert_allclose(found, same, atol=1e-6)
    assert max(np.abs(x - y).max() for x, y in zip(before, after, strict=True)) > 1e-4


def test_biases_start_to_move_where_kinds_are_few_and_hardly_where_they_are_many():
    few, many = classes(20), classes(100)
    rule = rules.make("default", kinds=True, **TWO_VIEWS)
    rule.assign(rule.theta() | {"readout/bias": tf.ones([rule.hidden, 1])})
    moved = [np.abs(learned(rule, batch)[2]).max() for batch in (few, many)]
    assert moved[0] > 10 * moved[1] > 0


def test_every_parameter_of_kinds_has_a_gradient():
    rule = rules.make("default", kinds=True, seed=1, **TWO_VIEWS)
    network = BaseNetwork((7, 9, 6), linear_top=rule.linear_top)
    keys = stateless.split(stateless.key(3), 2)
    inputs = tf.constant(
        np.concatenate([classes(3, batch=32, dimensions=7), classes(9, batch=32, dimensions=7)])
    )
    # The bias readout of this rule starts at zero, where the size of the bias's step does not matter.
    theta = per_task(rule.theta() | {"readout/bias": tf.ones([rule.hidden, 1])}, 2)
    with tf.GradientTape() as tape:
        tape.watch(theta)
        state = rule.initial_state(network.layer_sizes, keys)
        for _ in range(2):
            state = rule.update(theta, network, state, inputs, keys)
        loss = tf.reduce_sum(tf.square(state.kernels[-1] - 0.1))
    gradient = tape.gradient(loss, theta)
    for name, value in gradient.items():
        if name.startswith("kinds/"):
            assert np.isfinite(value).all() and np.abs(value).max() > 0, name
