"""How a rule's networks fare the longer it is applied, far beyond the lives of meta-training: does it keep what it learned?"""

import contextlib
import copy
import os
import re

import numpy as np
import tensorflow as tf
from threadpoolctl import threadpool_limits

from meta_rules import pretrained, saved_rules
from meta_rules import probes as meta_objectives
from meta_rules.configuration import configurable
from meta_rules.errors import UserError
from meta_rules.evaluation.probes import probe_accuracy
from meta_rules.evaluation.rule_methods import one

#: Of rules that were not meta-trained.
HORIZON = 500


def horizon_of(rule):
    """The longest life of a network in the meta-training of a rule, given by name or path, in applications.

    It is on the rule's card; earlier versions left it only in the configuration of the run, which lies with the rule or
    above it.
    """
    card = saved_rules.card_of(rule)
    if "horizon" in card or not card:
        return int(card.get("horizon", HORIZON))
    folder = pretrained.path(rule) if pretrained.is_shipped_name(rule) else rule
    for place in (folder, os.path.dirname(os.path.abspath(folder))):
        with contextlib.suppress(OSError), open(os.path.join(place, "config.gin")) as file:
            if lives := re.findall(r"\.horizon = \([0-9.]+, ([0-9.]+)\)", file.read()):
                return int(max(map(float, lives)))
    return HORIZON


def points_up_to(end):
    """Rule applications 0, 10, 20, 50, 100, 200 ... and `end`."""
    steps = [factor * 10**power for power in range(1, len(str(end))) for factor in (1, 2, 5)]
    return (0, *(step for step in steps if step < end), end)


@configurable
class Curves:
    """Probe accuracy and meta-loss against rule applications, with few-shot examples of its own at every point.

    Args:
      points: rule applications, increasing; a common divisor keeps compilation short. None goes to ten times the horizon.
      horizon: the longest life of a network in meta-training, which the plots mark; None looks it up (see `horizon_of`).
      networks: networks, each a draw of the protocol.
      shots: labelled examples a class.
      ridge: penalty of the meta-loss, which is that of meta-training (see `meta_rules.probes.ridge_probe`).
      methods: which rules: "learned" or "rule:NAME_OR_PATH".
    """

    def __init__(
        self,
        points: tuple | None = None,
        horizon: int | None = None,
        networks: int = 4,
        shots: int = 10,
        ridge: float = 1.0,
        methods: tuple = ("learned",),
    ):
        self.points, self.horizon, self.networks = points and tuple(points), horizon, networks
        self.shots, self.ridge, self.methods = shots, ridge, tuple(methods)
        if points is not None and (list(points) != sorted(set(points)) or not points or points[0] < 0):
            raise UserError(f"Curves.points must increase from 0 or more, got {points}.")

    def settled(self, rule):
        """These curves with whatever is None filled in for the rule of a name or path."""
        made = copy.copy(self)
        made.horizon = self.horizon or horizon_of(rule)
        made.points = self.points or points_up_to(10 * made.horizon)
        return made

    def description(self):
        """JSON-ready settings."""
        return dict(vars(self))

    @threadpool_limits.wrap(limits=1)
    def compute(self, method, data):
        """The curves of one rule.

        Args:
          method: a `RuleMethod`.
          data: a `ProtocolData`.

        Returns:
          JSON-ready dict of `points`, `accuracy` and `meta_loss`, the latter two `[points][networks]`.
        """
        draws = [data.draw(i) for i in range(self.networks)]
        network = method.training(draws[0]).network
        accuracy, losses = [], []
        for steps, state in method.states(draws, self.points):
            found = [
                self._point(method, data, network, draw, one(state, i), steps) for i, draw in enumerate(draws)
            ]
            accuracy.append([pair[0] for pair in found])
            losses.append([pair[1] for pair in found])
        return {"points": list(self.points), "accuracy": accuracy, "meta_loss": losses}

    def _point(self, method, data, network, draw, state, steps):
        support, query = data.labelled(draw, self.shots, salt=steps + 1), data.query(draw, salt=steps + 1)
        model = method.features(draw, state)
        parts = [(model.transform(part.examples), part.labels) for part in (support, draw.validation, query)]
        # As in meta-training: batch statistics are those of support and query together.
        both = tf.constant(np.concatenate([support.examples, query.examples]), network.compute_dtype)
        features = network(state, both[None])
        labels = tf.one_hot(
            np.concatenate([support.labels, query.labels]), draw.classes, dtype=features.dtype
        )[None]
        cut = len(support.labels)
        loss = meta_objectives.ridge_probe(
            features[:, :cut], labels[:, :cut], features[:, cut:], labels[:, cut:], ridge=self.ridge
        ).loss
        return probe_accuracy("ridge", *parts), float(loss[0])
