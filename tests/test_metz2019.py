"""The published 2019 rule: its parts against plain definitions, its gradient against finite differences."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from meta_rules import rules, stateless
from meta_rules.errors import UserError
from meta_rules.inner_loop import unroll
from meta_rules.rules import Metz2019, per_task
from meta_rules.rules import metz2019_parts as parts

SIZES, BATCH = (6, 5, 4), 7
SMALL = {"output_size": 4, "top_channels": 5, "channels": 6, "error_channels": 3, "readout_channels": 2}


def small(**changes):
    return Metz2019(**{**SMALL, **changes}, dtype="float64")


def setting(rule, tasks=1, seed=0, sizes=SIZES):
    """Network, state, per-task theta and a batch, all away from special values."""
    random = np.random.default_rng(seed)
    keys = stateless.split(stateless.key(seed), tasks)
    state = tf.nest.map_structure(lambda leaf: 20.0 * leaf, rule.initial_state(sizes, keys))
    theta = {
        name: value + 0.1 * random.normal(size=value.shape).astype(rule.dtype)
        for name, value in rule.theta().items()
    }
    batch = tf.constant(random.normal(size=(tasks, BATCH, sizes[0])).astype(rule.dtype))
    return rule.network(sizes), state, per_task(theta, tasks), batch


def correlate(values, kernel):
    """The definition: `out[p, t, o] = sum k, i of w[k, i, o] x[p, t + k - (K - 1) / 2, i]`, zero outside."""
    count = kernel.shape[0]
    out = np.zeros((*values.shape[:2], kernel.shape[2]))
    for t in range(values.shape[1]):
        for k in range(count):
            source = t + k - (count - 1) // 2
            if 0 <= source < values.shape[1]:
                out[:, t] += values[:, source] @ kernel[k]
    return out


@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("length", [1, 2, 8])
def test_convolutions_are_correlations_with_zero_padding(count, length):
    random = np.random.default_rng(0)
    kernel = random.normal(size=(2, count, 3, 4))
    # Batch axis, then unit axis: what is convolved has the length under test.
    for axis, shape in ((2, (2, 3, length, 5)), (3, (2, 3, 5, length))):
        values = random.normal(size=shape)
        found = parts.convolve(tf.constant(values), tf.constant(kernel), axis).numpy()
        for task in range(2):
            order = (2, 1, 0) if axis == 2 else (1, 2, 0)
            expected = correlate(values[task].transpose(order), kernel[task])
            np.testing.assert_allclose(found[task].transpose(order), expected, atol=1e-12)


def test_convolution_with_units_as_channels():
    random = np.random.default_rng(1)
    values, kernel = random.normal(size=(2, 5, 6, 3)), random.normal(size=(2, 3, 3, 3))
    found = parts.convolve_units_as_channels(tf.constant(values), tf.constant(kernel)).numpy()
    for task in range(2):
        np.testing.assert_allclose(found[task], correlate(values[task], kernel[task]), atol=1e-12)


@pytest.mark.parametrize("axes", [[2, 3], [1, 2]])
def test_batch_norm_and_its_written_out_gradient(axes):
    random = np.random.default_rng(2)
    values = tf.constant(random.normal(size=(2, 3, 4, 5)))
    shift = tf.constant(random.normal(size=[1 if axis in axes else values.shape[axis] for axis in range(4)]))
    seeds = tf.constant(random.normal(size=values.shape))

    def plain(values, shift):
        mean, variance = tf.nn.moments(values, axes, keepdims=True)
        return tf.nn.batch_normalization(values, mean, variance, shift, None, 1e-3)

    results = []
    for function in (plain, lambda values, shift: parts.batch_norm(values, shift, axes)):
        with tf.GradientTape() as tape:
            tape.watch([values, shift])
            out = function(values, shift)
        results.append([out, *tape.gradient(out, [values, shift], output_gradients=seeds)])
    for mine, expected in zip(*reversed(results), strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-12)


def test_initial_state_is_truncated_normal():
    state = Metz2019().initial_state((196, 128, 32), stateless.split(stateless.key(3), 2))
    for leaves, scale in ((state.kernels + state.feedback, 0.01), (state.biases, 0.1)):
        values = np.concatenate([leaf.numpy().ravel() for leaf in leaves]) / scale
        assert np.abs(values).max() <= 2.0
        # Deviation of the standard normal cut at two and not rescaled.
        assert abs(values.std() - 0.8796) < (0.01 if len(values) > 10000 else 0.1)
        assert abs(values.mean()) < (0.01 if len(values) > 10000 else 0.1)
    assert not np.allclose(state.kernels[0], state.feedback[0])


def test_another_output_size_is_refused_with_the_reason():
    with pytest.raises(UserError, match="output units as channels"):
        Metz2019().network((196, 128, 10))


def test_separate_updates_need_feedback_that_is_learned():
    with pytest.raises(UserError, match="feedback"):
        rules.make("metz2019", identical_updates=False, feedback="symmetric")


@pytest.mark.parametrize("identical", [True, False])
def test_v_changes_as_w_does_or_by_itself(identical):
    rule = small(identical_updates=identical)
    network, state, theta, batch = setting(rule)
    after = rule.update(theta, network, state, batch, None)
    keep = 1.0 - rule.step_size
    for layer in range(2):
        w = after.kernels[layer] - keep * state.kernels[layer]
        v = after.feedback[layer] - keep * state.feedback[layer]
        assert np.allclose(w, v, atol=1e-14) == identical


def test_tasks_do_not_see_each_other():
    rule = small()
    network, state, theta, batch = setting(rule, tasks=3)
    together = rule.update(theta, network, state, batch, None)
    for task in range(3):
        one = tf.nest.map_structure(lambda leaf, i=task: leaf[i : i + 1], (theta, state, batch))
        alone = rule.update(one[0], network, one[1], one[2], None)
        for a, b in zip(tf.nest.flatten(together), tf.nest.flatten(alone), strict=True):
            np.testing.assert_allclose(a[task], b[0], atol=1e-13)


def test_free_batch_size_and_input_width():
    rule = small()
    network, state, theta, batch = setting(rule)

    def spec(leaf):
        return tf.TensorSpec([1] + [None] * (leaf.shape.rank - 1), leaf.dtype)

    free_state = tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), state)
    free_first = tf.TensorSpec([1, None, SIZES[1]], tf.float64)
    free_state = free_state._replace(
        kernels=(free_first, *free_state.kernels[1:]), feedback=(free_first, *free_state.feedback[1:])
    )
    free = tf.function(
        lambda state, batch: rule.update(theta, network, state, batch, None),
        input_signature=[free_state, spec(batch)],
        autograph=False,
    )
    expected = rule.update(theta, network, state, batch, None)
    for a, b in zip(tf.nest.flatten(free(state, batch)), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)


@pytest.mark.parametrize("feedback", ["learned", "random", "symmetric", "direct", "none"])
def test_every_meta_parameter_counts_under_every_feedback(feedback):
    rule = small(feedback=feedback)
    network, state, theta, batch = setting(rule)
    with tf.GradientTape() as tape:
        tape.watch(theta)
        after = rule.update(theta, network, state, batch, None)
        loss = sum(tf.reduce_sum(tf.sin(leaf)) for leaf in tf.nest.flatten(after))
    for name, gradient in tape.gradient(loss, theta).items():
        assert gradient is not None and np.isfinite(gradient).all(), name
        # The mean of the bias change is lifted to zero at times, and then its bias cancels.
        assert np.any(gradient != 0.0) or name == "bias_readout/bias", name


def shifted_bias(state, amount):
    return state._replace(biases=(state.biases[0] + amount, *state.biases[1:]))


CASES = {
    "ordinary": lambda state, batch: (state, batch),
    "dead hidden layer": lambda state, batch: (shifted_bias(state, -50.0), batch),
    "all layers dead": lambda state, batch: (
        state._replace(biases=tuple(bias - 50.0 for bias in state.biases)),
        batch,
    ),
    "constant inputs": lambda state, batch: (state, tf.ones_like(batch) * 0.3),
    "zero inputs": lambda state, batch: (state, tf.zeros_like(batch)),
    "zero weights": lambda state, batch: (
        state._replace(kernels=tuple(tf.zeros_like(kernel) for kernel in state.kernels)),
        batch,
    ),
}


@functools.cache
def loss_and_gradient(identical):
    """A rule, its setting, and traced functions of theta, state and batch: a number and its gradient."""
    # With a step of one the new weights are the changes themselves, not 1e-4 of the whole.
    rule = small(identical_updates=identical, step_size=1.0)
    network, state, theta, batch = setting(rule, seed=4)

    @tf.function(autograph=False)
    def loss(theta, state, batch):
        after = rule.update(theta, network, state, batch, None)
        weights = np.random.default_rng(6)
        return sum(tf.reduce_sum(leaf * weights.normal(size=leaf.shape)) for leaf in tf.nest.flatten(after))

    @tf.function(autograph=False)
    def gradient(theta, state, batch):
        with tf.GradientTape() as tape:
            tape.watch([theta, state])
            value = loss(theta, state, batch)
        return tape.gradient(value, [theta, state], unconnected_gradients="zero")

    return loss, gradient, theta, state, batch


@pytest.mark.parametrize(
    ("case", "identical"),
    [(case, True) for case in CASES] + [pytest.param("ordinary", False, marks=pytest.mark.slow)],
)
def test_gradient_against_finite_differences(case, identical):
    loss, gradient, theta, state, batch = loss_and_gradient(identical)
    state, batch = CASES[case](state, batch)
    found = [leaf.numpy() for leaf in tf.nest.flatten(gradient(theta, state, batch))]
    assert all(np.isfinite(leaf).all() for leaf in found)
    if case == "zero weights":
        # The signs and absolute values of the weights have a corner there: finite, but nothing to compare with.
        return
    scale = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in found))
    random, amount = np.random.default_rng(5), 1e-7
    values = [theta, state]
    for kind in ("theta", "state", "both"):
        direction = [random.normal(size=leaf.shape) for leaf in tf.nest.flatten(values)]
        kept = {"theta": range(len(theta)), "state": range(len(theta), len(direction))}.get(kind)
        if kept:
            direction = [step * (i in kept) for i, step in enumerate(direction)]
        ends = []
        for sign in (1.0, -1.0):
            flat = zip(tf.nest.flatten(values), direction, strict=True)
            ends.append(
                loss(*tf.nest.pack_sequence_as(values, [v + sign * amount * d for v, d in flat]), batch)
            )
        numeric = float(ends[0] - ends[1]) / (2.0 * amount)
        exact = sum(np.sum(leaf * step) for leaf, step in zip(found, direction, strict=True))
        assert abs(numeric - exact) < 1e-6 * (scale + abs(exact)), (kind, numeric, exact)


@pytest.mark.slow
def test_gradient_through_the_compiled_loop_equals_the_plain_one():
    rule = small(blocks=1, top_unit_layers=1, top_batch_layers=0)
    network, state, theta, batch = setting(rule, tasks=2, sizes=(5, 4))
    gradients = []
    for compiled in (True, False):

        def total(theta, compiled=compiled):
            def step(theta, state, index):
                return rule.update(theta, network, state, batch, None), ()

            after = state
            if compiled:
                after, _ = unroll(step, theta, state, 3)
            else:
                for _ in range(3):
                    after, _ = step(theta, after, 0)
            return tf.reduce_sum(tf.square(network(after, batch)))

        @tf.function(jit_compile=compiled, autograph=False)
        def gradient(theta, total=total):
            with tf.GradientTape() as tape:
                tape.watch(theta)
                value = total(theta)
            return tape.gradient(value, theta)

        gradients.append(gradient(theta))
    for name, expected in gradients[1].items():
        np.testing.assert_allclose(gradients[0][name], expected, rtol=1e-6, atol=1e-12, err_msg=name)
