"""Mathematics of arrays `[tasks, channels, batch, units]`, in the forms that XLA compiles well, forward and backward.

What matters on a CPU (and does no harm elsewhere): a sum over the last, contiguous axis is compiled to a scalar loop,
because floating-point sums may not be reordered. A sum over the batch axis first adds whole rows of units, which is
vectorised and takes what it sums (a square, a product) along in the same pass; what is left for the units is small. The
gradient of the normalisation is written out in the same way. Where only the units are averaged, the mean is a product
with a vector of ones.
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


def batch_norm(values, shift, axes, epsilon=1e-3):
    """`(x - mean) / sqrt(variance + epsilon) + shift` with the statistics of `values` itself over `axes`; no scale.

    The gradient is written out: two averages and one pass over the values, where the plain one takes seven passes.

    Args:
      values: `[tasks, channels, batch, units]`, or any array.
      shift: of the shape of `values`, with ones on `axes`; None for none.
      axes: list of the axes to average over, outer ones first.
      epsilon: added to the variance inside the root.
    """

    def average(array):
        for axis in axes:
            array = tf.reduce_mean(array, axis=axis, keepdims=True)
        return array

    @tf.custom_gradient
    def normalised(values, shift):
        mean = average(values)
        scale = tf.math.rsqrt(average(tf.square(values - mean)) + epsilon)

        def gradient(upstream):
            count = tf.cast(tf.reduce_prod([size(values, axis) for axis in axes]), values.dtype)
            level = average(upstream)
            slope = average(upstream * (values - mean)) * tf.square(scale)
            return scale * (upstream - level - (values - mean) * slope), level * count

        return values * scale + (shift - mean * scale), gradient

    if shift is None:
        everything = range(len(values.shape))
        shift = tf.zeros([1 if axis in axes else size(values, axis) for axis in everything], values.dtype)
    return normalised(values, shift)


def channel_norm(values, shift=None, epsilon=1e-3):
    """Each channel to mean 0 and variance 1 over batch and units, then shifted.

    Args:
      values: `[tasks, channels, batch, units]`.
      shift: `[tasks, channels]`, added after; None for none.
      epsilon: added to the variance inside the root.
    """
    return batch_norm(values, None if shift is None else shift[:, :, None, None], [2, 3], epsilon)


def mix(weights, values):
    """Channels mixed: `weights [tasks, in, out]`, `values [tasks, in, batch, units]` -> `[tasks, out, batch, units]`."""
    tasks, batch, units = size(values, 0), size(values, 2), size(values, 3)
    rows = tf.reshape(values, [tasks, values.shape[1], batch * units])
    mixed = tf.matmul(weights, rows, transpose_a=True)
    return tf.reshape(mixed, [tasks, weights.shape[2], batch, units])


def outer(senders, receivers):
    """Sum over channels and batch of outer products: `[.., channels, batch, in]`, `[.., out]` -> `[tasks, in, out]`."""

    def flat(values):
        return tf.reshape(values, [size(values, 0), values.shape[1] * size(values, 2), size(values, 3)])

    return tf.matmul(flat(senders), flat(receivers), transpose_a=True)
