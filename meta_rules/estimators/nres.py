"""Noise-reuse evolution strategies: one perturbation a life, used in all its windows."""

from typing import NamedTuple

import tensorflow as tf

from meta_rules import stateless
from meta_rules.configuration import configurable
from meta_rules.estimators import perturbations
from meta_rules.estimators.base import Estimate, register
from meta_rules.estimators.lives import next_lives, with_fresh_starts
from meta_rules.trajectories import Trajectory


class Pairs(NamedTuple):
    """The pool of noise-reuse evolution strategies: trajectory of each arm; only their states differ."""

    plus: Trajectory
    minus: Trajectory


@register("nres")
@configurable
class NRES(perturbations.PairEstimator):
    """Noise-reuse evolution strategies (Li, Harrison, Sohl-Dickstein, Smith and Metz, NeurIPS 2023).

    As persistent evolution strategies (`PES`), but a life keeps one perturbation, to which all its losses are credited: no
    truncation bias either, and less variance where losses depend on theta smoothly. A life that starts inside a window has
    a perturbation of its own from there on.

    A pair that is not finite adds nothing and starts afresh; the mean is over all slots. See `PairEstimator` for the
    arguments; with `loss="end"` a loss is read at the end of each window.
    """

    def initial(self, problem, theta, slot):
        """The first pool; see `Estimator.initial`."""
        start = problem.initial(slot)
        return Pairs(start, start)

    def trajectory(self, pool):
        """The plus arms."""
        return pool.plus

    def contributions(self, problem, theta, pool, window):
        """See `PairEstimator.contributions`."""
        slot, count = pool.plus.slot, pool.plus.count
        fresh = next_lives(problem, slot, count, window)
        counts = tf.stack([count, *(life.count for life in fresh)])
        keys = stateless.fold(slot[None], "perturbation", counts)
        drawn = perturbations.draw(tf.reshape(keys, [-1, 2]), theta)
        parts = {name: tf.split(value, len(fresh) + 1) for name, value in drawn.items()}
        noises = [{name: part[n] for name, part in parts.items()} for n in range(len(fresh) + 1)]
        after, _, losses, figures = with_fresh_starts(
            problem,
            [perturbations.arms_of(theta, noise, self.sigma) for noise in noises],
            perturbations.both(pool.plus, pool.minus),
            [perturbations.both(start, start) for start in fresh],
            window,
            self.loss,
            self.read,
        )
        used = perturbations.finite_pairs((tf.transpose(losses), after))
        plus, minus = perturbations.halves(tf.transpose(losses))
        credits = [
            perturbations.credit(plus[:, n] - minus[:, n], noise, self.sigma, used)
            for n, noise in enumerate(noises)
        ]
        gradient = {name: sum(credit[name] for credit in credits) for name in theta}
        plus, minus = (perturbations.retire(arm, used) for arm in perturbations.halves(after))
        metrics = perturbations.metrics_of(tf.reduce_sum(losses, axis=0), after, used, figures)
        return gradient, Pairs(plus, minus), metrics

    def estimate(self, problem, theta, pool, window):
        """One meta-step; see `Estimator.estimate`."""
        gradient, pool, metrics = self.contributions(problem, theta, pool, window)
        slots = tf.constant(pool.plus.age.shape[0], metrics["loss"].dtype)
        return Estimate(perturbations.total(gradient), slots, pool, metrics)
