"""Truncated backpropagation through time: the meta-gradient of a window of rule applications."""

import tensorflow as tf

from meta_rules.configuration import configurable
from meta_rules.errors import UserError
from meta_rules.estimators.base import Estimate, Estimator, register
from meta_rules.inner_loop import unroll
from meta_rules.rules.base import per_task
from meta_rules.trajectories import finite, select


@register("truncated_bptt")
@configurable
class TruncatedBPTT(Estimator):
    """The gradient through a window of applications; what happened before the window is taken as given.

    A life that has reached its horizon is replaced before the window, so lives end where a window does.

    Args:
      loss: `end`, the meta-loss after the window; or `sum`, the mean of the meta-losses after each application.

    Raises:
      UserError: an unknown loss.
    """

    def __init__(self, loss: str = "end"):
        if loss not in ("end", "sum"):
            raise UserError(f"TruncatedBPTT.loss must be 'end' or 'sum', got {loss!r}.")
        self.loss = loss

    def initial(self, problem, theta, slot):
        """The first pool; see `Estimator.initial`."""
        return problem.initial(slot)

    def estimate(self, problem, theta, pool, window):
        """One meta-step; see `Estimator.estimate`."""
        pool = problem.restart(pool, problem.finished(pool))
        copies = per_task(theta, pool.age.shape[0])

        def step(copies, trajectory, index):
            trajectory = problem.advance(copies, trajectory)
            if self.loss == "end":
                return trajectory, ()
            loss, figures = problem.loss(copies, trajectory)
            return trajectory, (loss, figures)

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(copies)
            after, sums = unroll(step, copies, pool, window)
            if self.loss == "end":
                loss, figures = problem.loss(copies, after)
            else:
                loss, figures = tf.nest.map_structure(lambda total: total / window, sums)
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
