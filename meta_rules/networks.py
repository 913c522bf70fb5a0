"""The base network: the one that a learned rule trains without labels, and the state that the rule changes."""

from typing import NamedTuple

import keras
import tensorflow as tf

from meta_rules.errors import UserError

ACTIVATIONS = {
    "relu": tf.nn.relu,
    "leaky_relu": tf.nn.leaky_relu,
    "elu": tf.nn.elu,
    "tanh": tf.tanh,
    "sigmoid": tf.sigmoid,
    "swish": tf.nn.silu,
    "step": lambda z: tf.cast(z > 0, z.dtype),
    "linear": tf.identity,
}
#: Added to what lengths are divided by the root of.
LENGTH_EPSILON = 1e-12


class NetworkState(NamedTuple):
    """Everything that a rule changes; plain tensors, each with a leading task axis. Layers run from the input up.

    Attributes:
      kernels: one `[tasks, in, out]` a layer, W.
      biases: one `[tasks, out]` a layer, b.
      feedback: the matrices that carry the error down, V: one `[tasks, in, out]` a layer (or as the feedback scheme says).
      memory: what else a rule keeps between steps (running thresholds, lateral weights); a nest, often empty.
    """

    kernels: tuple
    biases: tuple
    feedback: tuple
    memory: tuple = ()


class Activities(NamedTuple):
    """Activities of every unit layer 0..L of a base network, each `[tasks, batch, units]`; layer 0 is the input.

    Attributes:
      pre: z. `z[0]` is the input, standardised where the network does so; `z[l]` is batch-normalised and shifted.
      post: x. `x[0]` is the input as it came, `x[l] = activation(z[l])`, at a linear top z itself.
    """

    pre: tuple
    post: tuple


class Moments(NamedTuple):
    """Mean and variance of a layer's input currents (layer 0: of its inputs), each `[tasks, 1, units]`."""

    mean: tf.Tensor
    variance: tf.Tensor


def moments(values):
    """Mean and population variance over the batch axis of `[tasks, batch, units]`, as `Moments` `[tasks, 1, units]`."""
    mean = tf.reduce_mean(values, axis=-2, keepdims=True)
    return Moments(mean, tf.reduce_mean(tf.square(values - mean), axis=-2, keepdims=True))


def shortens(length_kept, units):
    """Whether activities of so many units are `shortened` at all."""
    return length_kept < 1 and units > 1


def shortened(activity, length_kept):
    """`activity [..., batch, units]` divided by `sqrt((1 - length_kept) mean square + length_kept)`, example by example.

    Kept wholly, 1, nothing changes; at 0 all examples have a root mean square of 1, and only their direction is left. Those
    that have it already stay as they are. So does a single unit, which has no direction but its sign.
    """
    if not shortens(length_kept, activity.shape[-1]):
        return activity
    squares = tf.reduce_mean(tf.square(activity), axis=-1, keepdims=True)
    # An activity of nothing but zeros stays that, and has a gradient.
    return activity * tf.math.rsqrt((1.0 - length_kept) * squares + (length_kept + LENGTH_EPSILON))


class BaseNetwork(keras.layers.Layer):
    """Fully connected network `z = batch_norm(x W) + b`, `x' = activation(z)`, many at once on a leading task axis.

    It owns no variables: the state comes in with the data, so that one compiled program serves every network
    of a pool. Batch normalisation has no learned scale (Metz et al. 2019, section 3.1).

    Args:
      layer_sizes: units of every layer, input first: `(196, 128, 32)` has two weight layers.
      activation: a name in `ACTIVATIONS`, used in every layer but a linear top.
      epsilon: added to the variance inside the root.
      standardise_inputs: whether layer 0 reads `(x - mean) / (deviation + 0.1)` instead of x.
      linear_top: whether the top layer has no activation.
      length_kept: in [0, 1], how much of its length the top layer's activity keeps as features, see `shortened`.

    Raises:
      UserError: fewer than two layers, a size below one, an unknown activation, a length that cannot be kept.
    """

    def __init__(
        self,
        layer_sizes,
        activation="relu",
        epsilon=1e-6,
        standardise_inputs=True,
        linear_top=False,
        length_kept=1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.layer_sizes = tuple(int(size) for size in layer_sizes)
        if len(self.layer_sizes) < 2 or min(self.layer_sizes) < 1:
            raise UserError(f"layer_sizes must hold at least two positive sizes, got {layer_sizes}.")
        if activation not in ACTIVATIONS:
            raise UserError(f"Unknown activation {activation!r}; known: {', '.join(sorted(ACTIVATIONS))}.")
        if not 0 <= length_kept <= 1:
            raise UserError(f"length_kept must lie between 0 and 1, got {length_kept!r}.")
        self.activation = activation
        self.epsilon = epsilon
        self.standardise_inputs = standardise_inputs
        self.linear_top = linear_top
        self.length_kept = length_kept

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "layer_sizes": self.layer_sizes,
            "activation": self.activation,
            "epsilon": self.epsilon,
            "standardise_inputs": self.standardise_inputs,
            "linear_top": self.linear_top,
            "length_kept": self.length_kept,
        }

    @property
    def depth(self):
        """The number of weight layers."""
        return len(self.layer_sizes) - 1

    def activities(self, state, inputs, statistics=None):
        """Activities of every layer.

        Args:
          state: `NetworkState`.
          inputs: `[tasks, batch, in]`.
          statistics: `Moments` of every layer 0..L to normalise with, as `statistics` gives them; the batch's own if None.

        Returns:
          `Activities`.
        """
        return self._forward(state, inputs, statistics)[0]

    def statistics(self, state, inputs):
        """The `Moments` of every layer 0..L on a batch `[tasks, batch, in]`, to freeze for later calls."""
        return self._forward(state, inputs, None)[1]

    def call(self, state, inputs, statistics=None):
        """The features, see `features`, in the layer's own precision."""
        return self.features(state, inputs, statistics)

    def features(self, state, inputs, statistics=None):
        """The top layer's activity `[tasks, batch, out]`, `shortened`, in the precision of what is given."""
        return shortened(self.activities(state, inputs, statistics).post[-1], self.length_kept)

    def _forward(self, state, inputs, statistics):
        phi = ACTIVATIONS[self.activation]
        used = [statistics[0] if statistics else moments(inputs)]
        first = inputs
        if self.standardise_inputs:
            # Pixels that never change have no deviation; the 0.1 keeps their noise small.
            first = (inputs - used[0].mean) / (tf.sqrt(used[0].variance + 1e-12) + 0.1)
        pre, post = [first], [inputs]
        below = first
        for layer, (kernel, bias) in enumerate(zip(state.kernels, state.biases, strict=True), start=1):
            currents = tf.matmul(below, kernel)
            used.append(statistics[layer] if statistics else moments(currents))
            scale = tf.math.rsqrt(used[layer].variance + self.epsilon)
            pre.append((currents - used[layer].mean) * scale + bias[:, None, :])
            below = pre[-1] if self.linear_top and layer == self.depth else phi(pre[-1])
            post.append(below)
        return Activities(tuple(pre), tuple(post)), tuple(used)
