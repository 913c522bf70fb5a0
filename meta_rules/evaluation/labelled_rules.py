"""Update rules that are told labels, as methods: the network that they train is itself the classifier."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from meta_rules import saved_rules, stateless
from meta_rules.configuration import configurable
from meta_rules.errors import UserError
from meta_rules.evaluation.methods import Method, register
from meta_rules.evaluation.rule_methods import STATISTICS, described, one
from meta_rules.evaluation.training import NetworkTraining
from meta_rules.rules.base import Side
from meta_rules.tasks import receptive_fields

#: Labelled examples are padded to a multiple of this, so that few of them share one compiled program however few.
_PAD = 128
#: How examples are shown to a network whose rule's card does not say how they were in meta-training.
ARRANGEMENT = {"units": 256, "width": 0.2, "hidden": [], "labelled_size": 100, "batch_size": 128}


class Material(NamedTuple):
    """What batches are drawn from, encoded.

    Attributes:
      unlabelled: `[tasks, examples, inputs]`.
      labelled, labels: `[tasks, padded, inputs]` and one-hot `[tasks, padded, classes]`.
      count: `[tasks]`, how many of these are there.
    """

    unlabelled: tf.Tensor
    labelled: tf.Tensor
    labels: tf.Tensor
    count: tf.Tensor


class View:
    """How a network sees the examples of a draw: through receptive fields on some of the unlabelled ones, or as they are."""

    def __init__(self, draw, units, width):
        self._centres = None
        if units:
            random = np.random.default_rng(draw.seed)
            # Again from the start if they are too few: a network's size does not depend on how many there are.
            rows = np.resize(random.permutation(len(draw.unlabelled)), units)
            self._centres = tf.constant(draw.unlabelled[rows], tf.float32)[None]
            self._width = width * receptive_fields.spread(self._centres)

    def __call__(self, examples):
        """`[examples, inputs]` -> `[examples, seen]`."""
        examples = np.asarray(examples, np.float32)
        if self._centres is None:
            return examples
        return receptive_fields.answers(tf.constant(examples)[None], self._centres, self._width)[0].numpy()


class NetworkClassifier:
    """A base network whose top units are the classes, batch statistics frozen from unlabelled examples.

    Args:
      network: `BaseNetwork`.
      state: its `NetworkState`, with a task axis of one.
      view: `View`.
      unlabelled: `[examples, seen]`, encoded.
    """

    def __init__(self, network, state, view, unlabelled):
        self._network, self._state, self._view = network, state, view
        #: Activities that the top layer reads.
        self.features = network.layer_sizes[-2]
        self._statistics = network.statistics(state, tf.constant(unlabelled[:STATISTICS])[None])

    def predict(self, examples):
        """Labels `[examples]`."""
        seen = tf.constant(self._view(examples))[None]
        return self._network.activities(self._state, seen, self._statistics).pre[-1][0].numpy().argmax(-1)


@register("semi_supervised")
@configurable
class SemiSupervised(Method):
    """Networks trained by a rule that is told the labels of a few examples, on batches of these and of unlabelled ones.

    Args:
      rule: a registered name or the path of a saved rule, or an `UpdateRule`.
      applications: rule applications after which the network classifies, increasing.
      arrangement: dict of how examples are shown, in place of what the rule's card says (see `FewLabelFamily.arrangement`):
        `units` and `width` of receptive fields, `hidden` layers, `labelled_size` and `batch_size` of a batch.

    Raises:
      UserError: no such rule, one that is not told labels, or an unknown part of the arrangement.
    """

    needs_labels = True

    def __init__(
        self, rule="semi_supervised", applications: tuple = (50, 200), arrangement: dict | None = None
    ):
        card = saved_rules.card_of(rule) if isinstance(rule, str) else {}
        self.rule = saved_rules.resolve(rule) if isinstance(rule, str) else rule
        if not self.rule.needs_labels:
            raise UserError(f"Rule {self.rule.rule_name!r} is not told labels; it is the method 'rule:PATH'.")
        if not applications or min(applications) < 1:
            raise UserError(f"SemiSupervised.applications must be at least 1, got {applications}.")
        self.applications = tuple(applications)
        self.arrangement = ARRANGEMENT | card.get("arrangement", {}) | (arrangement or {})
        unknown = set(self.arrangement) - set(ARRANGEMENT)
        if unknown:
            raise UserError(
                f"SemiSupervised.arrangement has {min(unknown)!r}; known: {', '.join(ARRANGEMENT)}."
            )
        self._trainings, self._tasks = {}, 0

    def description(self):
        """The rule, its meta-parameters, the applications and the arrangement."""
        return described(self.rule) | {
            "applications": list(self.applications),
            "arrangement": self.arrangement,
        }

    def unlabelled_used(self, draw):
        """At most what its batches can hold, and the centres of the receptive fields."""
        shown = max(self.applications) * self.arrangement["batch_size"] + self.arrangement["units"]
        return min(len(draw.unlabelled), shown)

    def together(self, draw):
        """See `Method`."""
        return 4

    def fit_draws(self, draws, labelled=None):
        """See `Method`."""
        views = [View(draw, self.arrangement["units"], self.arrangement["width"]) for draw in draws]
        # A shorter last part would be compiled again.
        self._tasks = max(self._tasks, len(draws))
        padded = [*range(len(draws)), *[0] * (self._tasks - len(draws))]
        encoded = [view(draw.unlabelled) for view, draw in zip(views, draws, strict=True)]
        training = self._training(draws[0], encoded[0].shape[1])
        material = _material(
            [encoded[i] for i in padded],
            [(views[i](labelled[i].examples), labelled[i].labels, draws[i]) for i in padded],
        )
        root = stateless.fold(stateless.key(draws[0].protocol.seed), "semi_supervised")
        keys = stateless.fold(root, tf.constant([draws[i].index for i in padded]))
        state, done, theta = training.start(keys), 0, self.rule.theta()
        block = int(np.gcd.reduce(np.diff([0, *self.applications])))
        models = [{} for _ in draws]
        for upto in self.applications:
            state = training.train(theta, keys, material, state, done, upto - done, block)
            done = upto
            for i, model in enumerate(models):
                model[upto] = NetworkClassifier(training.network, one(state, i), views[i], encoded[i])
        return models

    def _training(self, draw, inputs):
        sizes = (inputs, *self.arrangement["hidden"], draw.classes)
        key = (sizes, draw.protocol.activation)
        if key not in self._trainings:
            labelled, unlabelled = self.arrangement["labelled_size"], self.arrangement["batch_size"]

            def batch(material, keys):
                return _batch(material, keys, labelled, unlabelled)

            self._trainings = {key: NetworkTraining(self.rule, sizes, draw.protocol.activation, batch)}
        return self._trainings[key]


def _material(unlabelled, labelled):
    """`Material` of several draws; `labelled` holds triples of encoded examples, labels and `Draw`."""
    examples, labels = [], []
    for seen, truth, draw in labelled:
        # In an order in which classes are mixed: a batch may hold a stretch of them only.
        order = np.resize(
            np.random.default_rng(draw.seed).permutation(len(truth)), -(-len(truth) // _PAD) * _PAD
        )
        examples.append(seen[order])
        labels.append(np.eye(draw.classes, dtype=np.float32)[truth[order]])
    count = tf.constant([len(truth) for _, truth, _ in labelled])
    return Material(
        *(tf.constant(np.stack(arrays), tf.float32) for arrays in (unlabelled, examples, labels)), count
    )


def _batch(material, keys, labelled, unlabelled):
    """A batch of every task: inputs `[tasks, batch, inputs]` and `Side`; first `labelled` examples with labels.

    Those are a stretch of the labelled ones from a random place on, and around the end: all of them if there is room.
    """
    start = stateless.integers(stateless.fold(keys, "labelled"), 1, material.count[:, None])
    turn = (start + tf.range(labelled)) % material.count[:, None]
    rows = stateless.integers(stateless.fold(keys, "unlabelled"), unlabelled, material.unlabelled.shape[1])
    told, labels = (tf.gather(leaf, turn, batch_dims=1) for leaf in (material.labelled, material.labels))
    inputs = tf.concat([told, tf.gather(material.unlabelled, rows, batch_dims=1)], axis=1)
    nothing = tf.zeros([labels.shape[0], unlabelled, labels.shape[2]], labels.dtype)
    known = tf.cast(tf.range(labelled + unlabelled) < labelled, labels.dtype)
    mask = tf.broadcast_to(known, [labels.shape[0], labelled + unlabelled])
    return inputs, Side(tf.concat([labels, nothing], axis=1), mask)
