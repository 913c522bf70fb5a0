"""Antithetic evolution strategies over whole lives: no backpropagation, no truncation."""

import tensorflow as tf

from meta_rules import stateless
from meta_rules.configuration import configurable
from meta_rules.estimators import perturbations
from meta_rules.estimators.base import Estimate, register
from meta_rules.estimators.lives import to_horizon


@register("es")
@configurable
class AntitheticES(perturbations.PairEstimator):
    """The gradient of the meta-loss smoothed by a Gaussian of deviation sigma, from one antithetic pair a slot.

    Each slot draws its own perturbation and lives one whole life with it added to theta, and the same life with it taken away
    (Salimans et al., arXiv:1703.03864, section 2; for learned rules Metz et al., "Understanding and correcting pathologies
    in the training of learned optimizers", ICML 2019). A pair of which an arm is not finite is left out.
    See `PairEstimator` for the arguments.
    """

    def length(self, problem, window):
        """The longest life, whatever the window."""
        return problem.longest

    def initial(self, problem, theta, slot):
        """The first pool; see `Estimator.initial`."""
        return problem.fresh(slot, tf.zeros([slot.shape[0]], tf.int32))

    def contributions(self, problem, theta, pool, window):
        """See `PairEstimator.contributions`."""
        start = problem.fresh(pool.slot, pool.count + 1)
        noise = perturbations.draw(stateless.fold(start.slot, "perturbation", start.count), theta)
        copies = perturbations.arms_of(theta, noise, self.sigma)
        pairs = perturbations.both(start, start)
        after, loss, figures = to_horizon(
            problem, copies, pairs, window, self.loss, self.read, differentiable=False
        )
        used = perturbations.finite_pairs((loss, after))
        plus, minus = perturbations.halves(loss)
        gradient = perturbations.credit(plus - minus, noise, self.sigma, used)
        pool = perturbations.retire(perturbations.halves(after)[0], used)
        return gradient, pool, perturbations.metrics_of(loss, after, used, figures)

    def estimate(self, problem, theta, pool, window):
        """One meta-step; see `Estimator.estimate`."""
        gradient, pool, metrics = self.contributions(problem, theta, pool, window)
        return Estimate(perturbations.total(gradient), tf.reduce_sum(metrics["used"]), pool, metrics)
