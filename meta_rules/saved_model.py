"""A learned rule as a SavedModel: learns from unlabelled rows and embeds others, in a process without this package."""

import os
import shutil

import tensorflow as tf

from meta_rules import stateless
from meta_rules.networks import Moments, NetworkState
from meta_rules.rules.base import per_task


class LearnedFeatures(tf.Module):
    """A rule and the hidden sizes of the networks that it is to train, as three functions to export.

    Rows and input width are free; the hidden sizes, the activation and the batch size are fixed by the export.

    Args:
      rule: an `UpdateRule`.
      hidden: sizes of the layers above the input.
      activation: of the base network.
      batch_size: rows a rule application, drawn with replacement.
    """

    def __init__(self, rule, hidden=(128, 32), activation="relu", batch_size=128):
        super().__init__()
        self._rule, self._hidden, self._batch_size = rule, tuple(hidden), batch_size
        # The input size is not part of any computation of the network; 1 stands for "free".
        self._network = rule.network((1, *self._hidden), activation)
        self._theta = {
            name: tf.Variable(value, trainable=False, name=name) for name, value in rule.theta().items()
        }
        rows = tf.TensorSpec([None, None], tf.float32, "inputs")
        scalar = [tf.TensorSpec([], tf.int32, "steps"), tf.TensorSpec([], tf.int32, "seed")]
        self.learn = tf.function(self._learn, input_signature=[rows, *scalar], autograph=False)
        self.features = tf.function(self._features, input_signature=[rows, *scalar], autograph=False)
        learned = self.learn.get_concrete_function().structured_outputs
        self._specs = {name: tf.TensorSpec(value.shape, tf.float32, name) for name, value in learned.items()}
        self.embed = tf.function(
            lambda inputs, **network: {"features": self._embed(inputs, network)}, autograph=False
        )
        self._embed_function = self.embed.get_concrete_function(rows, **self._specs)

    def signatures(self):
        """Serving signatures: `learn`, `embed`, and `serving_default`, which does both."""
        return {
            "learn": self.learn.get_concrete_function(),
            "embed": self._embed_function,
            "serving_default": self.features.get_concrete_function(),
        }

    def _learn(self, inputs, steps, seed):
        """A network trained on `inputs [rows, width]` by `steps` applications, as a flat dict of arrays."""
        key = stateless.fold(tf.zeros([1, 2], tf.int32), seed)
        width = tf.shape(inputs)[1]
        state = self._rule.initial_state((width, *self._hidden), stateless.fold(key, "network"))
        sizes = (None, *self._hidden)
        for layer, kernel in enumerate(state.kernels):
            kernel.set_shape([1, sizes[layer], sizes[layer + 1]])
        theta = per_task({name: tf.convert_to_tensor(value) for name, value in self._theta.items()}, 1)

        def body(index, state):
            step_key = stateless.fold(key, "step", index)
            drawn = stateless.integers(
                stateless.fold(step_key, "batch"), self._batch_size, tf.shape(inputs)[0]
            )
            batch = tf.gather(inputs, drawn[0])[None]
            after = self._rule.update(theta, self._network, state, batch, stateless.fold(step_key, "rule"))
            for old, new in zip(tf.nest.flatten(state), tf.nest.flatten(after), strict=True):
                new.set_shape(old.shape)
            return index + 1, after

        shapes = (tf.TensorShape([]), tf.nest.map_structure(lambda leaf: leaf.shape, state))
        _, state = tf.while_loop(
            lambda index, _: index < steps, body, (tf.constant(0), state), shape_invariants=shapes
        )
        learned = {}
        for layer, (kernel, bias) in enumerate(zip(state.kernels, state.biases, strict=True), start=1):
            learned[f"kernel_{layer}"], learned[f"bias_{layer}"] = kernel[0], bias[0]
        for layer, used in enumerate(self._network.statistics(state, inputs[None])):
            learned[f"mean_{layer}"], learned[f"variance_{layer}"] = used.mean[0, 0], used.variance[0, 0]
        return learned

    def _embed(self, inputs, network):
        """Features `[rows, units]` of `inputs [rows, width]` in a network that `learn` gave."""
        layers = range(1, len(self._hidden) + 1)
        state = NetworkState(
            tuple(network[f"kernel_{layer}"][None] for layer in layers),
            tuple(network[f"bias_{layer}"][None] for layer in layers),
            (),
        )
        statistics = tuple(
            Moments(network[f"mean_{layer}"][None, None], network[f"variance_{layer}"][None, None])
            for layer in range(len(self._hidden) + 1)
        )
        return self._network(state, inputs[None], statistics)[0]

    def _features(self, inputs, steps, seed):
        return {"features": self._embed(inputs, self._learn(inputs, steps, seed))}


def export_saved_model(path, rule, hidden=(128, 32), activation="relu", batch_size=128):
    """Writes a rule as a SavedModel folder; see `LearnedFeatures`. An older one at `path` goes when the new is whole."""
    module = LearnedFeatures(rule, hidden, activation, batch_size)
    partial = f"{path}.partial-{os.getpid()}"
    tf.saved_model.save(module, partial, signatures=module.signatures())
    if os.path.isdir(path):
        shutil.rmtree(path)
    os.replace(partial, path)
