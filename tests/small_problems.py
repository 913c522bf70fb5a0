"""Problems small enough for exact answers, and a rule small enough to compile in a moment."""

from typing import NamedTuple

import tensorflow as tf

from meta_rules import stateless
from meta_rules.rules.base import Parameter, UpdateRule
from meta_rules.tasks.family import TaskFamily
from meta_rules.trajectories import select


class Life(NamedTuple):
    state: tf.Tensor
    age: tf.Tensor
    horizon: tf.Tensor
    slot: tf.Tensor
    count: tf.Tensor


class LinearQuadratic:
    """s <- 0.9 s + effect * sum of theta + noise, loss 0.5 (s - 1)^2, s0 = 2: the methods of `RuleLearning`, exact answers.

    Args:
      lengths: lives last this long, the slot's second key word saying which.
      broken: `(word, count, age)`: the slot with this second key word has no finite loss in that life from that age on.
    """

    def __init__(self, lengths=(7,), effect=1.0, noise=0.0, broken=None, dtype=tf.float64):
        self.lengths, self.effect, self.noise, self.dtype = lengths, effect, noise, dtype
        self.broken = broken
        self.shortest, self.longest = min(lengths), max(lengths)
        self.largest_array = 1

    def slots(self, tasks):
        return tf.stack([tf.zeros([tasks], tf.int32), tf.range(tasks)], axis=1)

    def fresh(self, slot, count):
        horizon = tf.gather(tf.constant(self.lengths), slot[:, 1] % len(self.lengths))
        state = tf.fill([slot.shape[0]], tf.constant(2.0, self.dtype))
        return Life(state, tf.zeros_like(count), horizon, slot, count)

    def initial(self, slot):
        return self.fresh(slot, tf.zeros([slot.shape[0]], tf.int32))

    def finished(self, life):
        return life.age >= life.horizon

    def restart(self, life, where):
        return select(where, self.fresh(life.slot, life.count + 1), life)

    def advance(self, theta, life):
        shift = sum(tf.reduce_sum(tf.reshape(value, [life.age.shape[0], -1]), 1) for value in theta.values())
        state = 0.9 * life.state + self.effect * shift
        if self.noise:
            key = stateless.fold(life.slot, life.count, life.age)
            state += self.noise * stateless.normal(key, 1, self.dtype)[:, 0]
        return life._replace(state=state, age=life.age + 1)

    def loss(self, theta, life):
        loss = 0.5 * tf.square(life.state - 1.0)
        if self.broken:
            word, count, age = self.broken
            lost = (life.slot[:, 1] == word) & (life.count == count) & (life.age >= age)
            loss = tf.where(lost, tf.constant(float("nan"), loss.dtype), loss)
        return loss, {}


def derivative(theta=0.3, length=7, window=7, read="before"):
    """Derivative of the sum of the losses of one life, cut at the ends of windows: written out by hand."""
    state, slope, total = 2.0, 0.0, 0.0
    for step in range(length):
        if step % window == 0:
            slope = 0.0
        if read == "before":
            total += (state - 1.0) * slope
        state, slope = 0.9 * state + theta, 0.9 * slope + 1.0
        if read == "after":
            total += (state - 1.0) * slope
    return total


class SmallRule(UpdateRule):
    """Oja's rule with three learned numbers."""

    def __init__(self, feedback="none", seed=0, **kwargs):
        super().__init__(feedback=feedback, seed=seed, **kwargs)
        self.build_parameters()

    def parameters(self):
        return {"rate": Parameter((), value=-2.0), "planes": Parameter((2,), value=0.5)}

    def update(self, theta, network, state, inputs, keys):
        kernels, below = [], inputs
        rate = tf.exp(theta["rate"])[:, None, None]
        hebb, oja = (theta["planes"][:, i, None, None] for i in range(2))
        for kernel in state.kernels:
            above = tf.tanh(tf.matmul(below, kernel))
            batch = below.shape[1]
            plane = hebb * tf.matmul(below, above, transpose_a=True) / batch
            plane -= oja * kernel * tf.reduce_mean(tf.square(above), axis=1, keepdims=True)
            kernels.append(kernel + rate * plane)
            below = above
        return state._replace(kernels=tuple(kernels))


def small_family(**changes):
    """Three digits, a network of one layer."""
    return TaskFamily(
        **{
            "sources": ("digits",),
            "image_size": 8,
            "hidden": (5,),
            "activation": "tanh",
            "batch_size": 8,
            "ways": 3,
            "support": 3,
            "query": 3,
            "horizon": (3, 6),
            "windows": (4,),
        }
        | changes
    )
