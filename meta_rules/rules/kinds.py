"""What a batch tells of how many kinds of examples there are, and meta-parameters that depend on it.

What is good for ten classes is bad for a hundred, and nobody tells a rule how many there are. Two numbers do, roughly, and
both are read from the angles between the examples of a batch:

- *closeness*, the share of pairs that are near each other, which falls as classes become many;
- *narrowness*, the mean square of their cosines, which is one over the dimensions that the inputs fill. Where these are few,
  pairs are near each other by chance.

Alone, neither ranks data sets by their classes; together they nearly do (docs/meta_training_log.md, tenth part). Units cannot
see such a number among their inputs, because a unit network normalises what is the same for all of a batch away. So they move
the meta-parameters themselves: `theta[name] + sum_s signal_s * theta["kinds/" + name]_s`, for the names that a rule chooses.

Source: our own. One over the mean square of cosines is the participation ratio, the usual measure of dimension (Gao et al.,
"A theory of multineuronal dimensionality, dynamics and measurement", bioRxiv 2017).
"""

import tensorflow as tf

from meta_rules.rules.base import Parameter
from meta_rules.rules.local import cosines

SIGNALS = 2
#: A pair is near where its cosine is above this.
NEAR = 0.5
#: Where the logarithm of either lies on made-up handwriting, mixtures and textures: the middle of the signals.
_MIDDLE = (-4.5, -3.0)


def signals(inputs):
    """Closeness and narrowness, each in (-1, 1): `[tasks, 2]`.

    Args:
      inputs: `[tasks, batch, in]`, every input of mean 0 and of one scale over the batch.
    """
    alike = cosines(inputs)
    pairs = 1.0 - tf.eye(inputs.shape[1], dtype=inputs.dtype)
    count = tf.maximum(tf.reduce_sum(pairs), 1.0)
    near = tf.reduce_sum(pairs * tf.cast(alike > NEAR, inputs.dtype), axis=[1, 2]) / count
    narrow = tf.reduce_sum(pairs * tf.square(alike), axis=[1, 2]) / count
    logarithms = tf.math.log(tf.stack([near, narrow], axis=1) + 1e-3)
    return tf.tanh(0.5 * (logarithms - tf.constant(_MIDDLE, inputs.dtype)))


def parameters(known):
    """How much each signal moves each of the parameters `known`, a dict of name -> `Parameter`; nothing at first."""
    return {f"kinds/{name}": Parameter((SIGNALS, *each.shape)) for name, each in known.items()}


def adapted(theta, inputs):
    """Theta as it is for the kinds that these inputs seem to hold.

    Args:
      theta: dict of name -> `[tasks, ...]`, with those of `parameters`.
      inputs: see `signals`.
    """
    seen = signals(inputs)
    moves = {name.removeprefix("kinds/"): value for name, value in theta.items() if name.startswith("kinds/")}
    return theta | {
        name: theta[name] + tf.einsum("ts,ts...->t...", seen, value) for name, value in moves.items()
    }
