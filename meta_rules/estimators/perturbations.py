"""Antithetic pairs: two arms that differ in the sign of a perturbation of theta and in nothing else.

Both arms of a slot have the same keys, so they see the same data, permutation, labels and random numbers; they run as one
batch of twice the slots, the plus arms first. Perturbations are kept in units of their deviation `sigma`.
"""

import tensorflow as tf

from meta_rules import stateless
from meta_rules.errors import UserError
from meta_rules.estimators.base import Estimator, check_reading
from meta_rules.trajectories import finite


class PairEstimator(Estimator):
    """Base class of the estimators that compare two arms.

    Args:
      sigma: deviation of the perturbations, in units of theta.
      loss: `end`, the meta-loss where the window or the life ends; or `sum`, the mean over the applications.
      read: with `sum`, whether a loss is read `after` or `before` its application.

    Raises:
      UserError: an unknown loss or read, or sigma not above zero.
    """

    arms = 2

    def __init__(self, sigma: float = 0.01, loss: str = "end", read: str = "after"):
        self.sigma, self.loss, self.read = sigma, loss, read
        check_reading(self, loss, read)
        if not sigma > 0:
            raise UserError(f"{type(self).__name__}.sigma must be above 0, got {sigma}.")

    def contributions(self, problem, theta, pool, window):
        """As `estimate`, before the sum over slots.

        Returns:
          `(gradient, pool, metrics)`; gradient is a dict of name -> `[tasks, ...]`, zero for a pair that is left out.
        """
        raise NotImplementedError


def draw(keys, theta):
    """Standard normal noise like theta for every key `[tasks, 2]`: dict of name -> `[tasks, ...]`."""
    tasks, names = keys.shape[0], sorted(theta)
    sizes = [theta[name].shape.num_elements() for name in names]
    flat = stateless.normal(keys, sum(sizes), theta[names[0]].dtype)
    parts = tf.split(flat, sizes, axis=1)
    return {n: tf.reshape(part, [tasks, *theta[n].shape]) for n, part in zip(names, parts, strict=True)}


def arms_of(theta, noise, sigma):
    """The meta-parameters of both arms: dict of name -> `[2 tasks, ...]`."""
    return {
        name: tf.concat([theta[name] + sigma * n, theta[name] - sigma * n], 0) for name, n in noise.items()
    }


def both(plus, minus):
    """Nests of `[tasks, ...]` as one of `[2 tasks, ...]`."""
    return tf.nest.map_structure(lambda a, b: tf.concat([a, b], 0), plus, minus)


def halves(nest):
    """The inverse of `both`: `(plus, minus)`."""
    plus = tf.nest.map_structure(lambda leaf: leaf[: leaf.shape[0] // 2], nest)
    minus = tf.nest.map_structure(lambda leaf: leaf[leaf.shape[0] // 2 :], nest)
    return plus, minus


def finite_pairs(nest):
    """`[tasks]`: whether all floats of both arms are finite, in a nest of `[2 tasks, ...]`."""
    plus, minus = halves(nest)
    return finite(plus) & finite(minus)


def credit(difference, noise, sigma, used):
    """The estimate `(L+ - L-) noise / (2 sigma)` of every slot: dict of name -> `[tasks, ...]`.

    Args:
      difference: `[tasks]`, loss of the plus arms less that of the minus arms.
      noise: dict of name -> `[tasks, ...]`.
      sigma: deviation of the perturbations.
      used: `[tasks]`; zero credit where it does not hold.
    """
    scale = tf.where(used, difference / (2.0 * sigma), tf.zeros_like(difference))
    return {name: tf.reshape(scale, [-1] + [1] * (n.shape.rank - 1)) * n for name, n in noise.items()}


def total(gradient):
    """The sum over slots: dict of name -> tensor, without the task axis."""
    return {name: tf.reduce_sum(value, axis=0) for name, value in gradient.items()}


def metrics_of(loss, after, used, figures):
    """The metrics of an `Estimate`: means over the two arms.

    Args:
      loss: `[2 tasks]`.
      after: trajectory of both arms.
      used: `[tasks]`.
      figures: dict of name -> `[2 tasks]`.
    """
    plus, minus = halves({"loss": loss, "age": tf.cast(after.age, loss.dtype), **figures})
    means = tf.nest.map_structure(lambda a, b: 0.5 * (a + b), plus, minus)
    return means | {"used": tf.cast(used, loss.dtype)}


def retire(trajectory, used):
    """The trajectory with the slots that are not used at their horizon: their next step is a fresh start."""
    return trajectory._replace(horizon=tf.where(used, trajectory.horizon, 0))
