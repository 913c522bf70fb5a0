"""Units with overlapping receptive fields: how a sensory area might show an example to a network.

Unit k answers `exp(-|x - c_k|^2 / (2 width^2))`, divided by the sum over units (radial basis functions: Broomhead and
Lowe, Complex Systems 2, 1988). The centres are examples of the task itself, chosen without labels; nothing is learned.
"""

import tensorflow as tf


def answers(examples, centres, width):
    """What the units answer to examples.

    Args:
      examples: `[tasks, any, inputs]`.
      centres: `[tasks, units, inputs]`.
      width: of the fields, in the unit of the inputs: a number, or an array that broadcasts with `[tasks, any, units]`.

    Returns:
      `[tasks, any, units]`, all at least 0, of mean 1 over units.
    """
    distance = (
        tf.reduce_sum(tf.square(examples), axis=-1, keepdims=True)
        - 2.0 * tf.matmul(examples, centres, transpose_b=True)
        + tf.reduce_sum(tf.square(centres), axis=-1)[:, None]
    )
    units = tf.cast(tf.shape(centres)[1], examples.dtype)
    return units * tf.nn.softmax(-0.5 * distance / tf.square(width), axis=-1)


def spread(examples):
    """Root mean square distance of examples `[tasks, any, inputs]` from their mean, `[tasks, 1, 1]`: a scale for widths."""
    offset = examples - tf.reduce_mean(examples, axis=1, keepdims=True)
    square = tf.reduce_sum(tf.square(offset), axis=-1, keepdims=True)
    return tf.sqrt(tf.reduce_mean(square, axis=1, keepdims=True) + 1e-12)
