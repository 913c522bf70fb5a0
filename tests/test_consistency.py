"""Two views of a batch: the errors are the gradient of the objective in the module's text, by automatic differentiation."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import adjusted_rand_score

from meta_rules import feedback, rules, stateless
from meta_rules.errors import UserError
from meta_rules.inner_loop import unroll
from meta_rules.rules.base import per_task
from meta_rules.rules.consistency import consistency_errors, through_batch_norm
from meta_rules.rules.views import Damage, second_view

SHARPNESS, CERTAINTY, BALANCE = 1.7, 0.2, 0.6
KEYS = stateless.split(stateless.key(3), 2)


def objective(z, view):
    """The objective, for `[batch, units]`, as the module's text gives it."""
    p, again = tf.nn.softmax(SHARPNESS * z), tf.nn.softmax(SHARPNESS * view)
    agreement = tf.reduce_mean(tf.reduce_sum(tf.stop_gradient(p) * tf.math.log(again), axis=1))
    entropy = -tf.reduce_mean(tf.reduce_sum(p * tf.math.log(p), axis=1))
    mean = tf.reduce_mean(p, axis=0)
    return agreement - CERTAINTY * entropy - BALANCE * tf.reduce_sum(mean * tf.math.log(mean + 1e-6))


def errors_of(z, view):
    weights = (tf.constant([value], tf.float64) for value in (SHARPNESS, CERTAINTY, BALANCE))
    return consistency_errors(z[None], view[None], *weights)[0]


def test_errors_are_the_gradient_of_the_objective():
    random = np.random.default_rng(0)
    z, view = (tf.constant(random.normal(size=(9, 5))) for _ in range(2))
    with tf.GradientTape() as tape:
        tape.watch((z, view))
        value = objective(z, view)
    expected = tf.stack(tape.gradient(value, (z, view))) * 9 / SHARPNESS
    # The objective's 1e-6 inside the logarithm is taken as no part of the mean.
    np.testing.assert_allclose(errors_of(z, view), expected, atol=1e-5)


def test_errors_pass_through_batch_normalisation_as_its_gradient_does():
    random = np.random.default_rng(1)
    currents, errors = (tf.constant(random.normal(size=(9, 5))) for _ in range(2))

    def normalise(values):
        values -= tf.reduce_mean(values, axis=0)
        return values * tf.math.rsqrt(tf.reduce_mean(tf.square(values), axis=0))

    with tf.GradientTape() as tape:
        tape.watch(currents)
        value = tf.reduce_sum(errors * normalise(currents))
    deviation = tf.math.reduce_std(currents, axis=0)
    expected = tape.gradient(value, currents) * deviation
    np.testing.assert_allclose(through_batch_norm(errors, normalise(currents)), expected, atol=1e-12)


def test_the_change_of_one_layer_follows_the_gradient_with_respect_to_its_weights():
    rule = rules.make("default", planes=("consistency",), corruption=0.4, hidden=4, dtype="float64")
    weights = {"sharpness": SHARPNESS, "certainty": CERTAINTY, "balance": BALANCE}
    rule.assign(
        rule.theta() | {f"consistency/{name}": tf.constant(np.log(value)) for name, value in weights.items()}
    )
    network = rule.network((6, 4), "tanh")
    state = rule.initial_state((6, 4), KEYS)
    inputs = tf.constant(np.random.default_rng(2).normal(size=(2, 30, 6)))
    after = rule(state, inputs, network=network, keys=KEYS)
    damaged = second_view(inputs, Damage(0.4), KEYS)
    for task in range(2):
        kernel = state.kernels[0]
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            both = [
                network.activities(state._replace(kernels=(kernel,)), rows).pre[1][task]
                for rows in (inputs, damaged)
            ]
            value = objective(*both)
        slope = tape.gradient(value, kernel)[task].numpy()
        moved = after.kernels[0][task].numpy() - kernel[task].numpy()
        # The two views have deviations of their own, which the rule leaves out: the same direction but for that.
        for column in range(4):
            cosine = slope[:, column] @ moved[:, column]
            assert cosine / np.linalg.norm(slope[:, column]) / np.linalg.norm(moved[:, column]) > 0.98


@pytest.mark.parametrize("scheme", sorted(feedback.SCHEMES))
def test_every_feedback_scheme_carries_the_errors(scheme):
    rule = rules.make("default", planes=("consistency",), corruption=0.3, hidden=4, feedback=scheme)
    network = rule.network((6, 7, 5, 4), "elu")
    state = rule.initial_state((6, 7, 5, 4), KEYS)
    inputs = tf.random.stateless_normal([2, 20, 6], [1, 2])
    after = rule(state, inputs, network=network, keys=KEYS)
    for before, kernel in zip(state.kernels, after.kernels, strict=True):
        moved = tf.reduce_sum(tf.square(kernel - before), axis=1)
        assert np.all(np.isfinite(moved)) and np.all(moved > 0)


def test_it_tells_noisy_clusters_apart_that_random_features_mix():
    random = np.random.default_rng(0)
    centres = random.normal(size=(4, 20))
    of = random.integers(0, 4, size=800)
    rows = tf.constant(centres[of] + 0.7 * random.normal(size=(800, 20)), tf.float32)
    rule = rules.make("default", planes=("consistency",), corruption=0.3, feedback="symmetric")
    rule.assign(rule.theta() | {"step": tf.constant(-3.0)})
    network = rule.network((20, 16, 4))
    keys = KEYS[:1]
    state = rule.initial_state((20, 16, 4), keys)

    def step(theta, state, index):
        drawn = stateless.fold(keys, "step", index)
        batch = tf.gather(rows, stateless.integers(drawn, 64, 800)[0])
        return rule.update(theta, network, state, batch[None], drawn), ()

    learned = unroll(step, per_task(rule.theta(), 1), state, 300, differentiable=False)[0]

    assert agreement(of, learned, network, rows) > 0.9 > agreement(of, state, network, rows)


def agreement(classes, state, network, rows):
    """Adjusted Rand index of the classes with the unit that says most."""
    said = np.argmax(network.activities(state, rows[None]).pre[-1][0], axis=1)
    return adjusted_rand_score(classes, said)


@pytest.mark.parametrize(
    ("config", "words"),
    [({"planes": ("consistency",)}, "corruption"), ({"corruption": 1.0}, "corruption")],
)
def test_mistakes_are_one_clear_line(config, words):
    with pytest.raises(UserError, match=words):
        rules.make("default", **config)
