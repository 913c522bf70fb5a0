"""What every meta-gradient estimator is, and the registry of estimators.

An estimator turns the shared meta-parameters and a pool of trajectories into a meta-gradient and the next pool. It is a
pure function of tensors, compiled as a whole, and runs in every replica on that replica's slots.
"""

from typing import NamedTuple

import tensorflow as tf

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
        summed over replicas.
      weight: scalar, the number of tasks in the sum.
      pool: the next pool.
      metrics: dict of name -> `[tasks]`: at least `loss`, `accuracy` where the problem has one, `age`, and `used`, which is 1 for
        a task that is in the sum and 0 for one that was left out because it is not finite.
    """

    gradient: dict
    weight: tf.Tensor
    pool: tuple
    metrics: dict


class Estimator:
    """Base class of the estimators; see `Estimate`."""

    estimator_name = None

    def initial(self, problem, theta, slot):
        """The first pool for slots `[tasks, 2]`."""
        raise NotImplementedError

    def estimate(self, problem, theta, pool, window):
        """One meta-step of `window` rule applications; theta is a dict of name -> tensor, shared by all tasks."""
        raise NotImplementedError
