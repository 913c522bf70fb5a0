"""Backpropagation through whole lives: exact, and as expensive as a life is long."""

import tensorflow as tf

from meta_rules.configuration import configurable
from meta_rules.estimators.base import Estimate, Estimator, check_reading, register
from meta_rules.estimators.lives import to_horizon
from meta_rules.estimators.truncated_bptt import backpropagated
from meta_rules.rules.base import per_task


@register("full_bptt")
@configurable
class FullBPTT(Estimator):
    """The gradient through a whole life, from the fresh network to its horizon; every meta-step lives one a slot.

    The window is always the longest life of the family; a slot whose own horizon is nearer waits there for the others.

    Args:
      loss: `end`, the meta-loss at the horizon; or `sum`, the mean of the meta-losses over the life.
      read: with `sum`, whether a loss is read `after` or `before` its application.

    Raises:
      UserError: an unknown loss or read.
    """

    def __init__(self, loss: str = "end", read: str = "after"):
        self.loss, self.read = loss, read
        check_reading(self, loss, read)

    def length(self, problem, window):
        """The longest life, whatever the window."""
        return problem.longest

    def initial(self, problem, theta, slot):
        """The first pool; see `Estimator.initial`."""
        return problem.fresh(slot, tf.zeros([slot.shape[0]], tf.int32))

    def estimate(self, problem, theta, pool, window) -> Estimate:
        """One meta-step; see `Estimator.estimate`."""
        start = problem.fresh(pool.slot, pool.count + 1)
        copies = per_task(theta, pool.age.shape[0])
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(copies)
            after, loss, figures = to_horizon(problem, copies, start, window, self.loss, self.read)
        return backpropagated(tape, copies, after, loss, figures)
