"""The memory-flat gradient: equal to plain backpropagation and to finite differences, and flat in memory."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from meta_rules import stateless
from meta_rules.inner_loop import unroll
from meta_rules.rules import DefaultRule
from meta_rules.rules.base import per_task

STEPS, TASKS, SIZES = 4, 2, (6, 5, 4)


@pytest.fixture(scope="module")
def setting():
    rule = DefaultRule(hidden=5, error_channels=3, factors=2, dtype="float64")
    network = rule.network(SIZES)
    keys = stateless.split(stateless.key(0), TASKS)
    state = rule.initial_state(SIZES, keys)
    random = np.random.default_rng(0)
    data = tf.constant(random.normal(size=(STEPS, TASKS, 9, SIZES[0])))
    # Off their initial values, where some gradients are zero by symmetry.
    theta = {name: value + 0.05 * random.normal(size=value.shape) for name, value in rule.theta().items()}
    return rule, network, keys, state, data, theta


def meta_loss(setting, theta, state, looped):
    rule, network, keys, _, data, _ = setting
    copies = per_task(theta, TASKS)

    def step(copies, state, index):
        return rule.update(copies, network, state, data[index], keys), tf.reduce_sum(state.kernels[0] ** 3)

    if looped:
        state, total = unroll(step, copies, state, STEPS)
    else:
        total = 0.0
        for index in range(STEPS):
            state, output = step(copies, state, index)
            total += output
    return tf.reduce_sum(tf.sin(network(state, data[0]))) + 0.1 * total


def test_equal_to_plain_backpropagation(setting):
    theta, state = setting[-1], setting[3]
    found = []
    for looped, compiled in ((True, True), (True, False), (False, False)):

        @tf.function(jit_compile=compiled, autograph=False)
        def gradient(theta, state, looped=looped):
            with tf.GradientTape() as tape:
                tape.watch([theta, state])
                loss = meta_loss(setting, theta, state, looped)
            return loss, tape.gradient(loss, [theta, state], unconnected_gradients="zero")

        found.append(tf.nest.flatten(gradient(theta, state)))
    for other in found[:2]:
        for mine, plain in zip(other, found[2], strict=True):
            np.testing.assert_allclose(mine, plain, rtol=1e-6, atol=1e-9)


def test_equal_to_finite_differences(setting):
    theta, state = setting[-1], setting[3]

    @tf.function(jit_compile=True, autograph=False)
    def value(theta):
        return meta_loss(setting, theta, state, True)

    @tf.function(jit_compile=True, autograph=False)
    def gradient(theta):
        with tf.GradientTape() as tape:
            tape.watch(theta)
            loss = meta_loss(setting, theta, state, True)
        return tape.gradient(loss, theta)

    exact, random = gradient(theta), np.random.default_rng(1)
    for name in theta:
        direction = random.normal(size=theta[name].shape)
        width = 1e-6
        ends = [value({**theta, name: theta[name] + side * width * direction}).numpy() for side in (1, -1)]
        expected = np.sum(exact[name].numpy() * direction)
        np.testing.assert_allclose(
            (ends[0] - ends[1]) / (2 * width), expected, rtol=1e-4, atol=1e-6, err_msg=name
        )


def test_a_parameter_without_influence_is_named():
    theta = {"used": tf.ones([1]), "idle": tf.ones([1])}
    with tf.GradientTape() as tape, pytest.raises(ValueError, match="idle"):
        tape.watch(theta)
        after, _ = unroll(lambda theta, x, i: (x * theta["used"], ()), theta, tf.ones([1]), 3)
        tape.gradient(after, theta)


def test_integers_ride_along():
    theta = {"rate": tf.constant([0.5])}
    with tf.GradientTape() as tape:
        tape.watch(theta)
        (x, count), total = unroll(
            lambda theta, carry, i: ((carry[0] * theta["rate"], carry[1] + i), carry[0]),
            theta,
            (tf.ones([1]), tf.zeros([1], tf.int32)),
            3,
        )
        loss = tf.reduce_sum(x)
    assert count.numpy() == [3] and total.numpy() == [1.75]
    np.testing.assert_allclose(tape.gradient(loss, theta)["rate"], [3 * 0.25])


MEMORY = """
import resource
import tensorflow as tf
from meta_rules import stateless
from meta_rules.inner_loop import unroll
from meta_rules.rules import DefaultRule
from meta_rules.rules.base import per_task
# What a step leaves behind if it is kept, activities of 64 examples, is dozens of times what the network itself is.
rule, keys = DefaultRule(hidden=4, error_channels=2, factors=2), stateless.split(stateless.key(0), 2)
network = rule.network((100, 64, 32))
data = tf.reshape(stateless.normal(stateless.key(1), 2 * 64 * 100), [2, 64, 100])

def gradient(steps):
    def run(theta, state):
        theta = per_task(theta, 2)
        with tf.GradientTape() as tape:
            tape.watch(theta)
            state, _ = unroll(lambda t, s, i: (rule.update(t, network, s, data, keys), ()), theta, state, steps)
            loss = tf.reduce_sum(network(state, data))
        return tape.gradient(loss, theta)

    compiled = tf.function(run, jit_compile=True, autograph=False)
    compiled(rule.theta(), rule.initial_state((100, 64, 32), keys))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

# The highest so far, so the short window goes first. Each program also needs memory to be compiled, the first one most.
gradient(12)
print(gradient(13), gradient(400))
"""


def test_memory_does_not_grow_with_the_window():
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    short, long = map(int, run.stdout.split())
    assert long < 1.15 * short, (short, long)
