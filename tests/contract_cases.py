"""Every registered rule at a size that compiles in a moment, and the compiled functions that the contract tests share.

A new rule needs a line in `SMALL`; a test says so when it is missing. What makes another program of a rule than its
defaults is a line in `VARIANTS`.
"""

import functools
import inspect

import numpy as np
import tensorflow as tf

from meta_rules import rules, stateless
from meta_rules.inner_loop import unroll
from meta_rules.rules.base import Side, per_task

#: Arguments that make a rule small, by name.
SMALL = {
    "bcm": {},
    "competitive": {},
    "default": {"hidden": 4, "error_channels": 2, "factors": 2},
    "foldiak": {},
    "genome": {},
    "metz2019": {
        "output_size": 4,
        "top_channels": 3,
        "top_unit_layers": 1,
        "top_batch_layers": 1,
        "channels": 3,
        "blocks": 1,
        "error_channels": 2,
        "readout_channels": 2,
    },
    "oja": {},
    "sanger": {},
    "semi_supervised": {"hidden": 4, "error_channels": 2},
}
#: Registered name and arguments of a variant, by the name that the contract tests give it.
VARIANTS = {
    "default_contrast": (
        "default",
        {
            "planes": ("learned", "consistency"),
            "corruption": 0.3,
            "directions": 0.4,
            "neighbours": 0.3,
            "linear_top": True,
            "length_kept": 0.25,
            "falling": True,
            "held": 20.0,
            "anneal": 2.0,
            "kinds": True,
            "relations": True,
        },
    ),
    "genome_views": ("genome", {"corruption": 0.3, "patches": 0.5, "deformation": 1.0}),
    "genome_contrast": (
        "genome",
        {"corruption": 0.3, "directions": 0.4, "neighbours": 0.3, "linear_top": True, "length_kept": 0.0},
    ),
}
SIZES, TASKS, BATCH, STEPS = (6, 5, 4), 4, 7, 3
RULES = sorted(rules.REGISTRY) + sorted(VARIANTS)


def kind(name):
    """Class of a rule or variant."""
    return rules.REGISTRY[VARIANTS.get(name, (name, {}))[0]]


def has_error_signal(name):
    """Whether a rule takes a feedback scheme."""
    return "feedback" in inspect.signature(kind(name).__init__).parameters


@functools.cache
def make(name, dtype="float64", **config):
    """A small rule of that name whose meta-parameters are not at their initial values."""
    registered, variant = VARIANTS.get(name, (name, {}))
    rule = rules.make(registered, dtype=dtype, **SMALL.get(registered, {}), **variant, **config)
    random = np.random.default_rng(7)
    rule.assign({key: value + 0.1 * random.normal(size=value.shape) for key, value in rule.theta().items()})
    return rule


@functools.cache
def network(name, **config):
    """The rule's base network, 6-5-4."""
    return make(name, **config).network(SIZES)


def keys(tasks=TASKS):
    """One key a task."""
    return stateless.split(stateless.key(5), tasks)


def initial(rule):
    """Fresh networks."""
    return rule.initial_state(SIZES, keys())


def batches(steps=STEPS, seed=1, dtype="float64"):
    """Random data `[steps, tasks, batch, in]` in which inputs hang together."""
    random = np.random.default_rng(seed)
    shape = (steps, TASKS, BATCH, SIZES[0])
    mixed = random.normal(size=shape) @ random.normal(size=(TASKS, SIZES[0], SIZES[0])) / 2.0 + 0.3
    return tf.constant(mixed, dtype)


def side(rule, tasks=TASKS):
    """Keyword arguments of `update` beyond those of every rule: for a rule that needs labels, some."""
    if not rule.needs_labels:
        return {}
    labels = np.eye(SIZES[-1])[np.random.default_rng(4).integers(SIZES[-1], size=(TASKS, BATCH))]
    known = np.broadcast_to(np.arange(BATCH) < 3, (TASKS, BATCH))
    return {"side": Side(*(tf.constant(leaf[:tasks], rule.dtype) for leaf in (labels, known)))}


def learn(rule, net, theta, state, data):
    """The state after one application for every batch in `data [steps, tasks, batch, in]`."""

    def step(copies, state, index):
        return rule.update(
            copies, net, state, data[index], keys(data.shape[1]), **side(rule, data.shape[1])
        ), ()

    return unroll(step, per_task(theta, data.shape[1]), state, data.shape[0], differentiable=False)[0]


def projection(nest):
    """One number that depends on everything in a nest: its product with fixed random numbers."""
    total = 0.0
    for i, leaf in enumerate(tf.nest.flatten(nest)):
        weights = np.random.default_rng(i).normal(size=leaf.shape[1:])
        total += tf.reduce_sum(leaf * tf.constant(weights, leaf.dtype))
    return total


def gradient(rule, net, theta, state, data):
    """`projection` of the state after an unroll, and its gradient."""

    def step(copies, state, index):
        return rule.update(
            copies, net, state, data[index], keys(data.shape[1]), **side(rule, data.shape[1])
        ), ()

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(theta)
        after, _ = unroll(step, per_task(theta, data.shape[1]), state, data.shape[0])
        loss = projection(after)
    return loss, tape.gradient(loss, theta)


def told(rule, tasks=TASKS):
    """What `update` is told besides the batch: keys, and labels where the rule takes them."""
    return {"keys": keys(tasks), **side(rule, tasks)}


def one_step(rule, net, theta, state, inputs, given=None):
    """The state after one application to `inputs [tasks, batch, in]`, and the gradient of its `projection`."""
    tasks = inputs.shape[0]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(theta)
        given = told(rule, tasks) if given is None else given
        after = rule.update(per_task(theta, tasks), net, state, inputs, **given)
        loss = projection(after)
    return after, tape.gradient(loss, theta)


@functools.cache
def compiled(function, name, dtype="float64", jit_compile=True, **config):
    """`function(rule, network, theta, state, data)` for the small rule of that name, compiled, of the last three."""
    rule = make(name, dtype, **config)
    net = rule.network(SIZES)
    return tf.function(
        lambda theta, state, data: function(rule, net, theta, state, data),
        jit_compile=jit_compile,
        autograph=False,
    )
