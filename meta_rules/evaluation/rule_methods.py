"""Update rules as methods: the rule under judgement, its untrained network, and any other rule by name."""

import hashlib
import math

import numpy as np
import tensorflow as tf

from meta_rules import rules, saved_rules, stateless
from meta_rules.configuration import configurable
from meta_rules.errors import UserError
from meta_rules.evaluation.methods import Method, register
from meta_rules.evaluation.training import NetworkTraining
from meta_rules.rules.hand_designed import HandDesignedRule

#: Unlabelled examples that the batch statistics are frozen from.
STATISTICS = 1024
#: Applications a compiled program makes, if those asked for are multiples of it: so that all judgements share one.
BLOCK = 10
#: Networks that one compiled program trains side by side at most, and numbers in its arrays `[networks, batch, units]`, of
#: which several channels exist.
_NETWORKS, _ARRAY = 4, 200_000


def described(rule):
    """What makes a rule what it is, JSON-ready."""
    theta = rule.theta()
    digest = hashlib.sha256(b"".join(np.asarray(theta[name]).tobytes() for name in sorted(theta)))
    return {"rule": rule.rule_name, "config": rule.rule_config(), "theta": digest.hexdigest()[:16]}


def hand_designed():
    """Names of the registered hand-designed rules, sorted."""
    return sorted(name for name, cls in rules.REGISTRY.items() if issubclass(cls, HandDesignedRule))


class NetworkFeatures:
    """The features of one base network, batch statistics frozen from unlabelled examples.

    Args:
      network: `BaseNetwork`.
      state: its `NetworkState`, with a task axis of one.
      unlabelled: `[examples, inputs]`.
    """

    def __init__(self, network, state, unlabelled):
        self.network, self.state = network, state
        self._statistics = network.statistics(state, self._cast(unlabelled[:STATISTICS]))

    def _cast(self, examples):
        return tf.constant(examples, self.network.compute_dtype)[None]

    def transform(self, examples):
        """Features `[examples, features]` of `[examples, inputs]`."""
        return self.network(self.state, self._cast(examples), self._statistics)[0].numpy()


@register("rule")
@configurable
class RuleMethod(Method):
    """Networks trained by an update rule on batches of the unlabelled examples.

    Args:
      rule: a registered name or the path of a saved rule, or an `UpdateRule`.
      applications: rule applications after which the features are scored, increasing; 0 is the untrained network.

    Raises:
      UserError: no such rule, or one that is told labels.
    """

    def __init__(self, rule, applications: tuple = (50, 200, 500)):
        self.rule = saved_rules.resolve(rule) if isinstance(rule, str) else rule
        if self.rule.needs_labels:
            raise UserError(
                f"Rule {self.rule.rule_name!r} is told labels; it is the method 'semi_supervised:PATH'."
            )
        self.applications = tuple(applications)
        self._trainings = {}

    def description(self):
        """The rule, its meta-parameters and the applications."""
        return described(self.rule) | {"applications": list(self.applications)}

    def training(self, draw):
        """The `NetworkTraining` for draws like this one; its data are unlabelled examples `[tasks, examples, inputs]`."""
        protocol = draw.protocol
        sizes = (draw.unlabelled.shape[1], *protocol.hidden)
        key = (sizes, protocol.activation, protocol.batch_size)
        if key not in self._trainings:

            def batch(data, keys):
                rows = stateless.integers(keys, protocol.batch_size, data.shape[1])
                return tf.gather(data, rows, batch_dims=1)

            # One kind of network at a time: compiled programs are large.
            self._trainings = {key: NetworkTraining(self.rule, sizes, protocol.activation, batch)}
        return self._trainings[key]

    def unlabelled_used(self, draw):
        """At most what its batches can hold."""
        return min(len(draw.unlabelled), max(self.applications) * draw.protocol.batch_size)

    def states(self, draws, applications):
        """Trains networks on several draws side by side.

        Args:
          draws: list of `Draw` of one protocol.
          applications: increasing numbers of rule applications.

        Yields:
          `(applications, NetworkState)`, the state's task axis as long as `draws`.
        """
        training, theta = self.training(draws[0]), self.rule.theta()
        root = stateless.fold(stateless.key(draws[0].protocol.seed), "evaluation")
        keys = stateless.fold(root, tf.constant([draw.index for draw in draws]))
        state, done = training.start(keys), 0
        data = tf.constant(np.stack([draw.unlabelled for draw in draws]))
        # One program, called over and over, for all the stretches between.
        block = math.gcd(*(int(gap) for gap in np.diff([0, *applications])))
        block = block and math.gcd(block, BLOCK)
        for upto in applications:
            if upto > done:
                state = training.train(theta, keys, data, state, done, upto - done, block)
                done = upto
            yield upto, state

    def together(self, draw):
        """See `Method`; at most as many networks side by side as fit, in parts of one size where that can be."""
        protocol = draw.protocol
        widest = max(draw.unlabelled.shape[1], *protocol.hidden)
        most = int(np.clip(_ARRAY // (protocol.batch_size * widest), 1, _NETWORKS))
        return math.ceil(protocol.draws / math.ceil(protocol.draws / most))

    def fit_draws(self, draws, labelled=None):
        """See `Method`."""
        # A shorter last part would be compiled again.
        padded = [*draws, *draws[:1] * (self.together(draws[0]) - len(draws))]
        models = [{} for _ in draws]
        for steps, state in self.states(padded, self.applications):
            for i, draw in enumerate(draws):
                models[i][steps] = self.features(draw, one(state, i))
        return models

    def features(self, draw, state):
        """`NetworkFeatures` of a state with a task axis of one."""
        return NetworkFeatures(self.training(draw).network, state, draw.unlabelled)


def one(state, index):
    """Network `index` of a state, with a task axis of one."""
    return tf.nest.map_structure(lambda leaf: leaf[index : index + 1], state)
