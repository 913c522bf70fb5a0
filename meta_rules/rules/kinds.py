"""What a batch tells of how many kinds of examples there are, and meta-parameters that depend on it.

What is good for ten classes is bad for a hundred, and nobody tells a rule how many there are. Two numbers do, roughly, and
both are read from the angles between the examples of a batch:

- how near each other its examples are, the share of pairs with a cosine above 1/2, which falls as classes become many;
- how narrow it is, the mean square of the pairs' cosines, which is one over the dimensions that the inputs fill. Where these
  are few, pairs are near each other by chance.

Neither ranks data sets by their classes; the excess of the first over the second nearly does (docs/meta_training_log.md,
tenth part). Units cannot see such a number among their inputs, because a unit network normalises what is the same for all of
a batch away. So it moves the meta-parameters themselves: `theta[name] + sum_s signal_s * theta["kinds/" + name]_s`, for the
names that a rule chooses.

Signals of one batch are noisy (docs/meta_training_log.md, thirteenth part), so a rule may remember their mean. What is to be
one thing or the other, rather than a little more or less of it, then has a gate, a product of sigmoids of the signals.

Source: our own. One over the mean square of cosines is the participation ratio, the usual measure of dimension (Gao et al.,
"A theory of multineuronal dimensionality, dynamics and measurement", bioRxiv 2017).
"""

import tensorflow as tf

from meta_rules.rules.base import Parameter
from meta_rules.rules.local import cosines

SIGNALS = 2
#: A pair is near where its cosine is above this.
NEAR = 0.5
#: Where the logarithms of either lie on made-up handwriting, mixtures and textures.
_MIDDLE = (-4.5, -3.0)
#: So that the first signal is about 1 for ten kinds of digits, 0.3 for forty and more kinds of handwriting, and below 0 for
#: dozens of kinds of textures and mixtures.
_FEW, _SCALE = 0.2, 4.0
#: Where the gate starts: two sigmoids, each with a level and what either signal adds to it. Where kinds are few, units may
#: stand for classes; where they are many, and not as among textures, mixtures and text, relations are worth more.
GATE = {"few": [-15.6, 30.0, 0.0], "natural": [2.5, 15.0, -3.0]}
#: Over how many applications the mean of the signals is taken.
REMEMBERED = 100.0


def signals(inputs):
    """The excess of nearness over narrowness, large where kinds are few, and narrowness in (-1, 1): `[tasks, 2]`.

    Args:
      inputs: `[tasks, batch, in]`, every input of mean 0 and of one scale over the batch.
    """
    alike = cosines(inputs)
    pairs = 1.0 - tf.eye(inputs.shape[1], dtype=inputs.dtype)
    count = tf.maximum(tf.reduce_sum(pairs), 1.0)
    near = tf.reduce_sum(pairs * tf.cast(alike > NEAR, inputs.dtype), axis=[1, 2]) / count
    narrow = tf.reduce_sum(pairs * tf.square(alike), axis=[1, 2]) / count
    near, narrow = (
        tf.tanh(0.5 * (tf.math.log(share + 1e-3) - middle))
        for share, middle in zip((near, narrow), _MIDDLE, strict=True)
    )
    return tf.stack([_SCALE * (near - narrow - _FEW), narrow], axis=1)


def parameters(known, starts):
    """How much each signal moves meta-parameters.

    Args:
      known: dict of name -> `Parameter`, those that are moved.
      starts: dict of name -> value a signal, `[2, ...]`, for those that are moved from the start; others are not, at first.
    """
    return {
        f"kinds/{name}": Parameter((SIGNALS, *each.shape), value=starts.get(name, 0.0))
        for name, each in known.items()
    }


def adapted(theta, seen):
    """Theta as it is for the kinds that a batch seems to hold.

    Args:
      theta: dict of name -> `[tasks, ...]`, with those of `parameters`.
      seen: see `signals`.

    Returns:
      `theta`, each of the names that it moves now `[tasks, ...]` of the task's own kinds.
    """
    moves = {name.removeprefix("kinds/"): value for name, value in theta.items() if name.startswith("kinds/")}
    return theta | {
        name: theta[name] + tf.einsum("ts,ts...->t...", seen, value) for name, value in moves.items()
    }


def remembered(before, seen, age):
    """Mean of the signals, `[tasks, 2]`: of all so far, and of about the last hundred later on.

    Args:
      before: the mean up to now; whatever it is at age 0.
      seen: see `signals`.
      age: applications before this one, `[tasks]`.
    """
    return before + (seen - before) / (1.0 + tf.minimum(age, REMEMBERED))[:, None]


def gate_parameters():
    """The gate: of either sigmoid a level and a slope for either signal, `[3]`."""
    return {f"gate/{name}": Parameter((1 + SIGNALS,), value=start) for name, start in GATE.items()}


def gate(theta, seen):
    """How far relations are what is worth keeping of a batch: `[tasks]`, in (0, 1).

    Args:
      theta: dict with `gate_parameters`, `[tasks, 3]` each.
      seen: the signals, `[tasks, 2]`.
    """
    few, natural = (
        tf.sigmoid(theta[f"gate/{name}"][:, 0] + tf.reduce_sum(theta[f"gate/{name}"][:, 1:] * seen, axis=1))
        for name in GATE
    )
    return natural * (1.0 - few)
