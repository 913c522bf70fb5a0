"""A learned rule as a SavedModel: learns from unlabelled rows and embeds others, in a process without this package."""

import os
import shutil

import tensorflow as tf

from meta_rules.learning import RowLearning


class LearnedFeatures(tf.Module):
    """A rule and the hidden sizes of the networks that it is to train, as three functions to export.

    Rows and input width are free; the hidden sizes, the activation and the batch size are fixed by the export.

    Args:
      rule: an `UpdateRule`.
      hidden: sizes of the layers above the input.
      activation: of the base network.
      batch_size: rows a rule application, drawn with replacement.
    """

    def __init__(self, rule, hidden=(128, 32), activation="relu", batch_size=256):
        super().__init__()
        self._learning = RowLearning(rule, hidden, activation, batch_size)
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
            lambda inputs, **network: {"features": self._learning.features(network, inputs)}, autograph=False
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
        learning, key = self._learning, self._learning.key(seed)
        theta = {name: tf.convert_to_tensor(value) for name, value in self._theta.items()}
        state = learning.start(key, tf.shape(inputs)[1])
        return learning.learned(learning.advance(theta, state, inputs, key, 0, steps), inputs)

    def _features(self, inputs, steps, seed):
        return {"features": self._learning.features(self._learn(inputs, steps, seed), inputs)}


def export_saved_model(path, rule, hidden=(128, 32), activation="relu", batch_size=256):
    """Writes a rule as a SavedModel folder; see `LearnedFeatures`. An older one at `path` goes when the new is whole."""
    module = LearnedFeatures(rule, hidden, activation, batch_size)
    partial = f"{path}.partial-{os.getpid()}"
    tf.saved_model.save(module, partial, signatures=module.signatures())
    if os.path.isdir(path):
        shutil.rmtree(path)
    os.replace(partial, path)
