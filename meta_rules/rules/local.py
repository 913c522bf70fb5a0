"""What units can tell from their own activity and from their layer's: mathematics that several rules share.

Unless it says otherwise, a function works on `[..., batch, units]` with any leading axes. Products over the
batch are means, so that a change does not grow with the batch.
"""

import tensorflow as tf


def centred(values):
    """Each unit's activity less its mean over the batch."""
    return values - tf.reduce_mean(values, axis=-2, keepdims=True)


def batch_norm(values, axis=-2, epsilon=1e-3):
    """Each unit to mean 0 and variance 1 over the batch axis."""
    mean = tf.reduce_mean(values, axis=axis, keepdims=True)
    variance = tf.reduce_mean(tf.square(values - mean), axis=axis, keepdims=True)
    return (values - mean) * tf.math.rsqrt(variance + epsilon)


def direction(activity):
    """`activity [..., batch, units]` at length 1, and what each example was multiplied with."""
    factor = tf.math.rsqrt(tf.reduce_sum(tf.square(activity), axis=-1, keepdims=True) + 1e-6)
    return activity * factor, factor


def cosines(values):
    """Of the angles between examples: `[..., batch, units]` -> `[..., batch, batch]`."""
    along, _ = direction(values)
    return tf.matmul(along, along, transpose_b=True)


def winners(current):
    """1 where a unit is the largest of its layer for that example, 0 elsewhere; of equals the first wins."""
    # Not `current >= reduce_max(current)`: XLA may compute the two sides separately and round them differently,
    # and then an example has no winner at all.
    first = tf.argmax(current, axis=-1, output_type=tf.int32)
    return tf.one_hot(first, tf.shape(current)[-1], dtype=current.dtype)


def competition(current):
    """How strongly a unit wins within its layer, for every example: a softmax over units, 1 on average."""
    return tf.nn.softmax(2.0 * current, axis=-1) * tf.cast(tf.shape(current)[-1], current.dtype)


def mean_product(senders, receivers):
    """Batch mean of the outer product: `[.., batch, in]`, `[.., batch, out]` -> `[.., in, out]`."""
    examples = tf.cast(tf.shape(senders)[-2], senders.dtype)
    return tf.matmul(senders, receivers, transpose_a=True) / examples


def fall(exponent, age, held=100.0):
    """Logarithm of what a step has become of 1: `-softplus(exponent) * log(1 + age / held)`, of any shape."""
    return -tf.math.softplus(exponent) * tf.math.log1p(age / held)


def mean_square(values):
    """Mean over the batch of the square of each unit's activity, `[..., 1, units]`."""
    return tf.reduce_mean(tf.square(values), axis=-2, keepdims=True)
