"""What every meta-gradient estimator is, and the registry of estimators.

An estimator turns the shared meta-parameters and a pool of trajectories into a meta-gradient and the next pool. It is a
pure function of tensors, compiled as a whole, and runs in every replica on that replica's slots. All its random numbers
come from the slots' keys and from counters in the pool: a run does not depend on the number of replicas, and a resumed
run goes on exactly.

To add an estimator: a file in this folder with one subclass, decorated with `@register("name")` and `@configurable`,
imported in `__init__.py`.
"""

from typing import NamedTuple

import tensorflow as tf

from meta_rules import stateless
from meta_rules.errors import UserError

REGISTRY = {}


def register(name):
    """Class decorator: makes an estimator known by that name."""

    def add(cls):
        if name in REGISTRY:
            raise ValueError(f"Two estimators are registered as {name!r}.")
        cls.estimator_name = name
        REGISTRY[name] = cls
        return cls

    return add


class Estimate(NamedTuple):
    """What one meta-step of an estimator gives.

    Attributes:
      gradient: dict of name -> sum over tasks of the gradient, like theta. The mean is this over `weight`, both
        summed over replicas. Empty where the host makes the step (see `Estimator.host_update`).
      weight: scalar. The number of tasks in the sum; for persistent estimators the number of slots, whether a slot is in the
        sum or not: what a slot is owed is spread over all windows of a life, so its share must not depend on the others.
      pool: the next pool.
      metrics: dict of name -> `[tasks]`: at least `loss`, `accuracy` where the problem has one, `age`, and `used`, which is
        1 for a task that is in the sum and 0 for one that was left out because it is not finite.
    """

    gradient: dict
    weight: tf.Tensor
    pool: tuple
    metrics: dict


class Estimator:
    """Base class of the estimators; see `Estimate`."""

    estimator_name = None
    #: Networks that live side by side in every slot.
    arms = 1
    #: Whether the step is made on the host, by `ask` and `tell` (see `black_box.BlackBox`), not from `Estimate.gradient`.
    host_update = False

    def check(self, tasks):
        """Raises a `UserError` if it cannot work with that number of slots over all replicas."""

    def slots(self, root, tasks):
        """Keys `[tasks, 2]` of the slots of a pool with the key `root [2]`; equal keys live through equal tasks."""
        return stateless.split(root, tasks)

    def length(self, problem, window):
        """Rule applications of a meta-step whose window is `window`: what `estimate` is given."""
        return window

    def initial(self, problem, theta, slot):
        """The first pool for slots `[tasks, 2]`."""
        raise NotImplementedError

    def trajectory(self, pool):
        """One trajectory a slot, to look at."""
        return pool

    def estimate(self, problem, theta, pool, window):
        """One meta-step of `window` rule applications; theta is a dict of name -> tensor, shared by all tasks."""
        raise NotImplementedError


def check_reading(estimator, loss, read):
    """Raises a `UserError` unless `loss` and `read` are among those that `lives` knows."""
    name = type(estimator).__name__
    if loss not in ("end", "sum"):
        raise UserError(f"{name}.loss must be 'end' or 'sum', got {loss!r}.")
    if read not in ("after", "before"):
        raise UserError(f"{name}.read must be 'after' or 'before', got {read!r}.")
