"""A network that learns from the rows of an array: the loop behind `RuleLearner`, `pretrain` and the SavedModels.

Meta-training draws its batches from task families, of sizes that the compiler knows. Here the data are somebody's own rows:
their number and their width are free, so one traced program serves every array.
"""

import functools
import json

import tensorflow as tf

from meta_rules import rules, stateless
from meta_rules.networks import Moments, NetworkState
from meta_rules.rules.base import per_task


class RowLearning:
    """One rule, one kind of network, and what becomes of rows `[rows, width]` in it. Pure functions, no variables.

    Everything has a task axis of 1 inside, as rules want it. A *learned* network is a flat dict of arrays without that
    axis: `kernel_l [in, out]`, `bias_l [out]` for the layers 1..L, and `mean_l`, `variance_l [units]` for 0..L, the
    statistics to normalise with.

    Args:
      rule: an `UpdateRule`; only its mathematics is used, its meta-parameters come in as `theta`.
      hidden: sizes of the layers above the input.
      activation: of the base network.
      batch_size: rows a rule application, drawn with replacement.
    """

    def __init__(self, rule, hidden, activation="relu", batch_size=256):
        self.rule, self.hidden, self.batch_size = rule, tuple(hidden), batch_size
        # The input size is not part of any computation of the network; 1 stands for "free".
        self.network = rule.network((1, *self.hidden), activation)

    def key(self, seed):
        """The key `[1, 2]` from which everything random of a network comes; `seed` may be a tensor."""
        return stateless.fold(tf.zeros([1, 2], tf.int32), seed)

    def start(self, key, width):
        """A fresh `NetworkState` for rows of `width` columns, which may be a tensor."""
        state = self.rule.initial_state((width, *self.hidden), stateless.fold(key, "network"))
        sizes = (None, *self.hidden)
        for layer, kernel in enumerate(state.kernels):
            kernel.set_shape([1, sizes[layer], sizes[layer + 1]])
        return state

    def advance(self, theta, state, rows, key, first, steps):
        """The state after the applications numbered `first` to `first + steps - 1`, each to a batch of its own.

        Args:
          theta: dict of name -> meta-parameter, without a task axis.
          state: `NetworkState`.
          rows: `[rows, width]`.
          key: see `key`.
          first, steps: integers or scalar tensors.
        """
        theta = per_task(theta, 1)

        def body(index, state):
            step_key = stateless.fold(key, "step", index)
            drawn = stateless.integers(stateless.fold(step_key, "batch"), self.batch_size, tf.shape(rows)[0])
            batch = tf.gather(rows, drawn[0])[None]
            after = self.rule.update(theta, self.network, state, batch, stateless.fold(step_key, "rule"))
            for old, new in zip(tf.nest.flatten(state), tf.nest.flatten(after), strict=True):
                new.set_shape(old.shape)
            return index + 1, after

        shapes = (tf.TensorShape([]), tf.nest.map_structure(lambda leaf: leaf.shape, state))
        _, state = tf.while_loop(
            lambda index, _: index < first + steps,
            body,
            (tf.convert_to_tensor(first), state),
            shape_invariants=shapes,
        )
        return state

    def learned(self, state, rows):
        """The learned network: the state's weights, and the statistics of `rows [rows, width]` in it."""
        found = {}
        for layer, (kernel, bias) in enumerate(zip(state.kernels, state.biases, strict=True), start=1):
            found[f"kernel_{layer}"], found[f"bias_{layer}"] = kernel[0], bias[0]
        for layer, used in enumerate(self.network.statistics(state, rows[None])):
            found[f"mean_{layer}"], found[f"variance_{layer}"] = used.mean[0, 0], used.variance[0, 0]
        return found

    def features(self, learned, rows):
        """See the function `features`."""
        return features(self.network, learned, rows)


def features(network, learned, rows):
    """Features `[rows, units]` of `rows [rows, width]` in a learned network, in the precision of its arrays.

    Args:
      network: a `BaseNetwork`.
      learned: dict of arrays or tensors, see `RowLearning`.
      rows: of the same dtype.
    """
    learned = {name: tf.convert_to_tensor(value) for name, value in learned.items()}
    layers = range(1, network.depth + 1)
    state = NetworkState(
        tuple(learned[f"kernel_{layer}"][None] for layer in layers),
        tuple(learned[f"bias_{layer}"][None] for layer in layers),
        (),
    )
    statistics = tuple(
        Moments(learned[f"mean_{layer}"][None, None], learned[f"variance_{layer}"][None, None])
        for layer in range(network.depth + 1)
    )
    return network.features(state, tf.convert_to_tensor(rows)[None], statistics)[0]


class CompiledLearning:
    """`RowLearning` as programs that are traced once and then serve every array, whatever its rows and columns."""

    def __init__(self, rule, hidden, activation, batch_size):
        self.learning = learning = RowLearning(rule, hidden, activation, batch_size)
        key = tf.TensorSpec([1, 2], tf.int32)
        scalar = tf.TensorSpec([], tf.int32)
        rows = tf.TensorSpec([None, None], tf.float32)
        theta = {name: tf.TensorSpec(value.shape, value.dtype) for name, value in rule.theta().items()}
        function = functools.partial(tf.function, autograph=False)
        self.start = function(learning.start, input_signature=[key, scalar])
        started = self.start.get_concrete_function().structured_outputs
        state = tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), started)
        self.advance = function(learning.advance, input_signature=[theta, state, rows, key, scalar, scalar])
        self.learned = function(learning.learned, input_signature=[state, rows])
        # The network as it is on a batch of its own: what the settling of the features is measured on.
        self.now = function(
            lambda state, rows: learning.network.features(state, rows[None])[0],
            input_signature=[state, rows],
        )


@functools.lru_cache(maxsize=64)
def compiled(rule_name, config, hidden, activation, batch_size):
    """The `CompiledLearning` of a registered rule; one that was asked for before comes back at once.

    It has a rule of its own: a program that is kept must not be changed through an object of the user's.

    Args:
      rule_name: as registered.
      config: `UpdateRule.rule_config` as JSON text.
      hidden, activation, batch_size: see `RowLearning`.
    """
    return CompiledLearning(rules.make(rule_name, **json.loads(config)), hidden, activation, batch_size)
