"""What a meta-gradient estimator works on: base networks that live, learn, are probed, and are replaced.

A *trajectory* is the life of one base network under the rule, from a fresh start to its horizon. A pool holds one a slot.
`RuleLearning` is the problem of a learned rule on one task family; an estimator asks nothing else of a problem than the
methods here, so that it can be tested on any other with the same ones.
"""

from typing import NamedTuple

import tensorflow as tf

from meta_rules import probes, stateless
from meta_rules.configuration import configurable
from meta_rules.errors import UserError
from meta_rules.networks import NetworkState
from meta_rules.rules.base import per_task
from meta_rules.tasks.family import Task


class Trajectory(NamedTuple):
    """One base network a slot and where it is in its life.

    Attributes:
      state: `NetworkState`, `[tasks, ...]`.
      task: `Task` it learns.
      age: `[tasks]` rule applications so far.
      horizon: `[tasks]` applications after which the slot starts afresh.
      slot: `[tasks, 2]` the slot's own key, which never changes; all its random numbers come from it.
      count: `[tasks]` networks that the slot has started.
    """

    state: NetworkState
    task: Task
    age: tf.Tensor
    horizon: tf.Tensor
    slot: tf.Tensor
    count: tf.Tensor

    @property
    def key(self):
        """`[tasks, 2]` key of this life."""
        return stateless.fold(self.slot, self.count)


def select(condition, yes, no):
    """Per task, the nest `yes` where `condition [tasks]` holds, else `no`."""

    def pick(a, b):
        shape = tf.concat([tf.shape(condition), tf.ones([tf.rank(a) - 1], tf.int32)], 0)
        if a.shape.rank is not None and condition.shape[0] is not None:
            shape = [condition.shape[0]] + [1] * (a.shape.rank - 1)
        return tf.where(tf.reshape(condition, shape), a, b)

    return tf.nest.map_structure(pick, yes, no)


def finite(nest):
    """`[tasks]`: whether every float of a task is finite in all tensors `[tasks, ...]` of the nest."""
    checks = [
        tf.reduce_all(tf.math.is_finite(tf.reshape(leaf, [leaf.shape[0], -1])), axis=1)
        for leaf in tf.nest.flatten(nest)
        if leaf.dtype.is_floating
    ]
    return tf.reduce_all(tf.stack(checks), axis=0)


@configurable
class RuleLearning:
    """The problem of learning a rule on one task family.

    Args:
      rule: an `UpdateRule`.
      family: a `TaskFamily`.
      ridge: penalty of the ridge probe.
      objective: what the meta-loss is: `squared_error`, the published one, or `cross_entropy`, which asks for the right class
        before the others and not for its exact target, and so is nearer to accuracy where there are many classes.

    Raises:
      UserError: an unknown objective.
    """

    def __init__(self, rule, family, ridge: float = 1.0, objective: str = "squared_error"):
        if objective not in ("squared_error", "cross_entropy"):
            raise UserError(
                f"RuleLearning.objective must be 'squared_error' or 'cross_entropy', got {objective!r}."
            )
        self.rule, self.family, self.ridge, self.objective = rule, family, ridge, objective
        self.network = rule.network(family.layer_sizes, family.activation)

    @property
    def shortest(self):
        """Rule applications of the shortest life; only a slot's first may be shorter."""
        return int(round(self.family.horizon[0]))

    @property
    def longest(self):
        """Rule applications of the longest life."""
        return int(round(self.family.horizon[1]))

    @property
    def largest_array(self):
        """Numbers in the largest array that one network's step makes."""
        return self.rule.array_channels * self.family.batch_size * max(self.family.layer_sizes)

    def fresh(self, slot, count):
        """New lives in the slots `[tasks, 2]`, numbered `count [tasks]`."""
        key = stateless.fold(slot, count)
        state = self.rule.initial_state(self.family.layer_sizes, stateless.fold(key, "network"))
        task = self.family.sample(stateless.fold(key, "task"))
        spread = stateless.uniform(stateless.fold(key, "horizon"), 1)[:, 0]
        shortest, longest = self.family.horizon
        length = shortest * tf.pow(longest / shortest, spread)
        return Trajectory(state, task, tf.zeros_like(count), tf.cast(tf.round(length), tf.int32), slot, count)

    def initial(self, slot):
        """The first pool, slots `[tasks, 2]`. First lives end early by a random share, so that resets never coincide."""
        trajectory = self.fresh(slot, tf.zeros([slot.shape[0]], tf.int32))
        share = stateless.uniform(stateless.fold(slot, "stagger"), 1)[:, 0]
        shorter = tf.cast(share * tf.cast(trajectory.horizon, tf.float32), tf.int32)
        return trajectory._replace(horizon=tf.maximum(shorter, 1))

    def finished(self, trajectory):
        """`[tasks]`: whether a life has reached its horizon."""
        return trajectory.age >= trajectory.horizon

    def restart(self, trajectory, where):
        """Fresh lives in the slots where `where [tasks]` holds."""
        return select(where, self.fresh(trajectory.slot, trajectory.count + 1), trajectory)

    def advance(self, theta, trajectory):
        """One application of the rule in every slot; theta is a dict of name -> `[tasks, ...]`."""
        key = stateless.fold(trajectory.key, "step", trajectory.age)
        inputs = self.family.batch(trajectory.task, stateless.fold(key, "batch"))
        inputs = tf.cast(inputs, self.rule.dtype)
        state = self.rule.update(theta, self.network, trajectory.state, inputs, stateless.fold(key, "rule"))
        return trajectory._replace(state=state, age=trajectory.age + 1)

    def loss(self, theta, trajectory):
        """The meta-loss `[tasks]` and a dict of other figures `[tasks]`, on a few-shot draw of this age."""
        key = stateless.fold(trajectory.key, "probe", trajectory.age)
        shots = tf.nest.map_structure(
            lambda value: tf.cast(value, self.rule.dtype), self.family.few_shot(trajectory.task, key)
        )
        # One pass over both, as published: batch statistics are over support and query together.
        features = self.network(trajectory.state, tf.concat([shots.support, shots.query], axis=1))
        cut = shots.support.shape[1]
        result = probes.ridge_probe(
            features[:, :cut], shots.support_labels, features[:, cut:], shots.query_labels, ridge=self.ridge
        )
        loss = result.loss if self.objective == "squared_error" else result.query_cross_entropy
        return loss, {"accuracy": result.query_accuracy}


class PartlyFixed:
    """A problem in which some meta-parameters have their values, and only the others are anybody's to choose.

    Args:
      problem: such as `RuleLearning`; all that is not here is its own.
      fixed: dict of name -> tensor, without a task axis, of the meta-parameters that `advance` and `loss` are not given.
    """

    def __init__(self, problem, fixed):
        self._problem, self._fixed = problem, fixed

    def __getattr__(self, name):
        return getattr(self._problem, name)

    def advance(self, theta, trajectory):
        """As the problem's own."""
        return self._problem.advance(self._whole(theta, trajectory), trajectory)

    def loss(self, theta, trajectory):
        """As the problem's own."""
        return self._problem.loss(self._whole(theta, trajectory), trajectory)

    def _whole(self, theta, trajectory):
        return theta | per_task(self._fixed, trajectory.slot.shape[0])
