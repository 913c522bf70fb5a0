"""The contrast between two views: its errors are the gradient of the objective in the module's text, and act in the genome."""

import numpy as np
import pytest
import tensorflow as tf

from meta_rules import rules, stateless
from meta_rules.errors import UserError
from meta_rules.rules.base import per_task
from meta_rules.rules.contrast import contrast_errors

TEMPERATURE, SHARPNESS = 0.3, 1.7
KEYS = stateless.split(stateless.key(5), 2)
TWO_VIEWS = {"corruption": 0.4, "feedback": "symmetric", "dtype": "float64"}


def objective(z, view):
    """The objective for `[batch, units]`, example by example: how surely each view finds the other."""
    kinds = [
        tf.math.l2_normalize(tf.stop_gradient(tf.nn.softmax(SHARPNESS * each)), axis=1) for each in (z, view)
    ]
    z, view = (tf.math.l2_normalize(each, axis=1) for each in (z, view))
    total = 0.0
    for i in range(len(z)):
        own = tf.exp(tf.reduce_sum(z[i] * view[i]) / TEMPERATURE)
        by_row = by_column = own
        for j in set(range(len(z))) - {i}:
            there = 1.001 - tf.reduce_sum(kinds[0][i] * kinds[1][j])
            back = 1.001 - tf.reduce_sum(kinds[0][j] * kinds[1][i])
            by_row += there * tf.exp(tf.reduce_sum(z[i] * view[j]) / TEMPERATURE)
            by_column += back * tf.exp(tf.reduce_sum(z[j] * view[i]) / TEMPERATURE)
        total += tf.math.log(own / by_row) + tf.math.log(own / by_column)
    return total / (2 * len(z))


def nearest(z, view):
    """Whether the second view of an example is nearer to its first, by angle, than that of any other: `[batch]`."""
    z, view = (np.asarray(each) / np.linalg.norm(each, axis=1, keepdims=True) for each in (z, view))
    return np.argmax(z @ view.T, axis=1) == np.arange(len(z))


def test_errors_are_the_gradient_of_the_objective_for_every_task():
    random = np.random.default_rng(0)
    z, view = (tf.constant(random.normal(size=(2, 9, 5))) for _ in range(2))
    found = contrast_errors(
        z, view, *(tf.constant([each] * 2, tf.float64) for each in (TEMPERATURE, SHARPNESS))
    )
    for task in range(2):
        pair = z[task], view[task]
        with tf.GradientTape() as tape:
            tape.watch(pair)
            value = objective(*pair)
        # The epsilons inside the lengths of the rule are no part of the objective here.
        np.testing.assert_allclose(found[task], 9 * tf.stack(tape.gradient(value, pair)), atol=1e-5)


def test_an_example_that_no_unit_answers_to_has_finite_errors():
    z = tf.constant(np.random.default_rng(1).normal(size=(1, 6, 4)), tf.float32)
    silent = tf.concat([tf.zeros([1, 1, 4]), z[:, 1:]], axis=1)
    assert np.isfinite(contrast_errors(silent, z, tf.constant([0.01]), tf.constant([2.0]))).all()


def test_views_of_an_example_find_each_other_once_the_genome_has_learned_by_contrast_alone():
    rule = rules.make("genome", contrast=True, linear_top=True, **TWO_VIEWS)
    weights = {"certainty": 1e-6, "balance": 1e-6, "contrast": 1e3, "temperature": 0.3}
    rule.assign(
        rule.theta() | {f"consistency/{name}": tf.constant(np.log(value)) for name, value in weights.items()}
    )
    sizes = (20, 16, 6)
    network, state = rule.network(sizes), rule.initial_state(sizes, KEYS)
    random = np.random.default_rng(2)
    mixing = random.normal(size=(6, 20))
    inputs = tf.constant(random.normal(size=(2, 40, 6)) @ mixing)

    def found(state):
        pair = network(state, inputs), network(state, inputs + random.normal(size=inputs.shape))
        return np.mean([np.mean(nearest(*(each[task] for each in pair))) for task in range(2)])

    first = found(state)
    learn = tf.function(
        lambda state, keys: rule.update(per_task(rule.theta(), 2), network, state, inputs, keys)
    )
    for step in range(100):
        state = learn(state, stateless.fold(KEYS, "step", step))
    assert found(state) > first + 0.2


def test_without_weight_the_contrast_changes_nothing():
    sizes = (8, 6, 5)
    inputs = tf.constant(np.random.default_rng(3).normal(size=(2, 12, 8)))
    kernels = []
    for contrast in (False, True):
        rule = rules.make("genome", contrast=contrast, **TWO_VIEWS)
        if contrast:
            rule.assign(rule.theta() | {"consistency/contrast": tf.constant(-80.0)})
        state = rule.initial_state(sizes, KEYS)
        kernels.append(rule(state, inputs, network=rule.network(sizes), keys=KEYS).kernels)
    for one, other in zip(*kernels, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_contrast_without_a_second_view_is_refused():
    with pytest.raises(UserError, match="corruption"):
        rules.make("genome", contrast=True)
