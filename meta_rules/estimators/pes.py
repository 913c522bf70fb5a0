"""Persistent evolution strategies: short windows, no truncation bias."""

from typing import NamedTuple

import tensorflow as tf

from meta_rules import stateless
from meta_rules.configuration import configurable
from meta_rules.estimators import perturbations
from meta_rules.estimators.base import Estimate, register
from meta_rules.estimators.lives import next_lives, with_fresh_starts
from meta_rules.trajectories import Trajectory, select


class Particles(NamedTuple):
    """The pool of persistent evolution strategies.

    Attributes:
      plus, minus: trajectory of each arm; only their states differ.
      accumulated: dict of name -> `[tasks, ...]`, the sum of the perturbations that the present life has had.
      draws: `[tasks]` perturbations drawn so far in the slot.
    """

    plus: Trajectory
    minus: Trajectory
    accumulated: dict
    draws: tf.Tensor


@register("pes")
@configurable
class PES(perturbations.PairEstimator):
    """Persistent evolution strategies (Vicol, Metz and Sohl-Dickstein, ICML 2021, algorithm 2).

    Each slot has a pair of networks that live on from window to window. A window draws a fresh perturbation, and its losses are
    credited to the sum of all perturbations of the life. When a life ends inside a window, what was read up to and with
    its last application still belongs to that sum; what is read in the fresh life that follows belongs to the window's
    perturbation alone, which is what the sum then starts from.

    A pair that is not finite adds nothing and starts afresh. The mean is over all slots, so that every window of a life
    counts the same. See `PairEstimator` for the arguments; with `loss="end"` a loss is read at the end of each window.
    """

    def initial(self, problem, theta, slot):
        """The first pool; see `Estimator.initial`."""
        start = problem.initial(slot)
        tasks = slot.shape[0]
        nothing = {name: tf.zeros([tasks, *value.shape], value.dtype) for name, value in theta.items()}
        return Particles(start, start, nothing, tf.zeros([tasks], tf.int32))

    def trajectory(self, pool):
        """The plus arms."""
        return pool.plus

    def contributions(self, problem, theta, pool, window):
        """See `PairEstimator.contributions`."""
        slot, count = pool.plus.slot, pool.plus.count
        noise = perturbations.draw(stateless.fold(slot, "perturbation", pool.draws), theta)
        copies = [perturbations.arms_of(theta, noise, self.sigma)]
        fresh = next_lives(problem, slot, count, window)
        after, life, losses, figures = with_fresh_starts(
            problem,
            copies,
            perturbations.both(pool.plus, pool.minus),
            [perturbations.both(start, start) for start in fresh],
            window,
            self.loss,
            self.read,
        )
        used = perturbations.finite_pairs((tf.transpose(losses), after))
        plus, minus = perturbations.halves(tf.transpose(losses))
        difference = plus - minus
        persistent = {name: pool.accumulated[name] + n for name, n in noise.items()}
        of_old = perturbations.credit(difference[:, 0], persistent, self.sigma, used)
        of_new = perturbations.credit(tf.reduce_sum(difference[:, 1:], axis=1), noise, self.sigma, used)
        gradient = {name: of_old[name] + of_new[name] for name in noise}
        begun = perturbations.halves(life)[0] > 0
        accumulated = select(begun, noise, persistent)
        plus, minus = (perturbations.retire(arm, used) for arm in perturbations.halves(after))
        metrics = perturbations.metrics_of(tf.reduce_sum(losses, axis=0), after, used, figures)
        return gradient, Particles(plus, minus, accumulated, pool.draws + 1), metrics

    def estimate(self, problem, theta, pool, window):
        """One meta-step; see `Estimator.estimate`."""
        gradient, pool, metrics = self.contributions(problem, theta, pool, window)
        slots = tf.constant(pool.draws.shape[0], metrics["loss"].dtype)
        return Estimate(perturbations.total(gradient), slots, pool, metrics)
