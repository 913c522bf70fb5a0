"""Mathematics of arrays `[tasks, channels, batch, units]`, in the forms that XLA compiles well, forward and backward.

What matters on a CPU (and does no harm elsewhere): a sum over the contiguous axes is compiled to a scalar loop, because
floating-point sums may not be reordered, while a product with a vector of ones goes to the vectorised matrix product.
So means over batch and units are such products, and the gradient of the normalisation is written out in the same way.
"""

import tensorflow as tf


def size(tensor, axis):
    """Length of an axis: a number where it is known when tracing, a scalar tensor where it is not."""
    known = tensor.shape[axis]
    return known if known is not None else tf.shape(tensor)[axis]


def row_means(rows):
    """Mean over the last axis, kept: `[..., length]` -> `[..., 1]`."""
    length = size(rows, -1)
    leading = [size(rows, axis) for axis in range(len(rows.shape) - 1)]
    ones = tf.fill([length, 1], tf.cast(1.0, rows.dtype) / tf.cast(length, rows.dtype))
    return tf.reshape(tf.matmul(tf.reshape(rows, [-1, length]), ones), [*leading, 1])


def channel_means(values):
    """Mean over batch and units: `[tasks, channels, batch, units]` -> `[tasks, channels]`."""
    return row_means(tf.reshape(values, [size(values, 0), values.shape[1], -1]))[..., 0]


def channel_norm(values, shift=None, epsilon=1e-3):
    """Each channel to mean 0 and variance 1 over batch and units, then shifted.

    Args:
      values: `[tasks, channels, batch, units]`.
      shift: `[tasks, channels]`, added after; None for none.
      epsilon: added to the variance inside the root.
    """
    shape = [size(values, axis) for axis in range(4)]
    rows = tf.reshape(values, [*shape[:2], shape[2] * shape[3]])

    @tf.custom_gradient
    def normalised(rows, shift):
        centred = rows - row_means(rows)
        scale = tf.math.rsqrt(row_means(tf.square(centred)) + epsilon)
        unit = centred * scale

        def gradient(upstream):
            mean = row_means(upstream)
            inner = scale * (upstream - mean - unit * row_means(upstream * unit))
            return inner, mean * tf.cast(size(rows, 2), rows.dtype)

        return unit + shift, gradient

    shift = tf.zeros([shape[0], shape[1]], values.dtype) if shift is None else shift
    return tf.reshape(normalised(rows, shift[:, :, None]), shape)


def mix(weights, values):
    """Channels mixed: `weights [tasks, in, out]`, `values [tasks, in, batch, units]` -> `[tasks, out, batch, units]`."""
    tasks, batch, units = size(values, 0), size(values, 2), size(values, 3)
    # Not transpose_a: as it stands the gradient of the weights is a product of few long rows by fewer, which is fast.
    rows = tf.reshape(values, [tasks, values.shape[1], batch * units])
    mixed = tf.matmul(tf.linalg.matrix_transpose(weights), rows)
    return tf.reshape(mixed, [tasks, weights.shape[2], batch, units])


def outer(senders, receivers):
    """Sum over channels and batch of outer products: `[.., channels, batch, in]`, `[.., out]` -> `[tasks, in, out]`."""

    def flat(values):
        return tf.reshape(values, [size(values, 0), values.shape[1] * size(values, 2), size(values, 3)])

    return tf.matmul(flat(senders), flat(receivers), transpose_a=True)
