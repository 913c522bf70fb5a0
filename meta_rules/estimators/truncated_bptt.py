"""Truncated backpropagation through time: the meta-gradient of a window of rule applications."""

import tensorflow as tf

from meta_rules.configuration import configurable
from meta_rules.estimators.base import Estimate, Estimator, check_reading, register
from meta_rules.estimators.lives import through_window
from meta_rules.rules.base import per_task
from meta_rules.trajectories import finite, select


@register("truncated_bptt")
@configurable
class TruncatedBPTT(Estimator):
    """The gradient through a window of applications; what happened before the window is taken as given.

    A life that has reached its horizon is replaced before the window, so lives end where a window does.

    Args:
      loss: `end`, the meta-loss after the window; or `sum`, the mean of the meta-losses at each application.
      read: with `sum`, whether a loss is read `after` or `before` its application.

    Raises:
      UserError: an unknown loss or read.
    """

    def __init__(self, loss: str = "end", read: str = "after"):
        self.loss, self.read = loss, read
        check_reading(self, loss, read)

    def initial(self, problem, theta, slot):
        """The first pool; see `Estimator.initial`."""
        return problem.initial(slot)

    def estimate(self, problem, theta, pool, window):
        """One meta-step; see `Estimator.estimate`."""
        pool = problem.restart(pool, problem.finished(pool))
        copies = per_task(theta, pool.age.shape[0])
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(copies)
            after, loss, figures = through_window(problem, copies, pool, window, self.loss, self.read)
        return backpropagated(tape, copies, after, loss, figures)


def backpropagated(tape, copies, after, loss, figures):
    """The `Estimate` of slots whose loss `[tasks]` was recorded on the tape as a function of their copies of theta."""
    # A loss is its own task's alone, so the sum's gradient with respect to a task's copy is that task's gradient.
    gradient = tape.gradient(loss, copies)
    used = finite((loss, gradient, after))
    gradient = {
        name: tf.reduce_sum(select(used, value, tf.zeros_like(value)), axis=0)
        for name, value in gradient.items()
    }
    # A network that is no longer finite has no future; it counts as having reached its horizon.
    after = after._replace(horizon=tf.where(used, after.horizon, 0))
    used = tf.cast(used, loss.dtype)
    metrics = {"loss": loss, "age": tf.cast(after.age, loss.dtype), "used": used, **figures}
    return Estimate(gradient, tf.reduce_sum(used), after, metrics)
