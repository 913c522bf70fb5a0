"""What tells an example from the others: its second view should be like its first, and unlike everybody else's.

Where there are more classes than units, units that each stand for a class cannot tell them apart; directions can. With u the
direction of a layer's activity z, u' that of the second view, the objective is

    mean_i [ log (a_ii / sum_j a_ij) + log (a_ii / sum_j a_ji) ] / 2            a_ij = exp(u_i . u'_j / temperature)

over the examples i and j of the batch. The colder, the more an example is itself and not its kind: examples of one class are
driven apart too, so it is for units of its own, beside those that stand for classes (see `consistency.py`).

Source: Chen, Kornblith, Norouzi and Hinton, "A simple framework for contrastive learning of visual representations", ICML
2020, section 2.1, here between the two views only. The errors are the gradient in closed form.
"""

import tensorflow as tf


def contrast_errors(pre, view, temperature):
    """Gradient of the objective above with respect to a layer's activity, but for the factor `1 / batch`.

    Args:
      pre, view: z of the two views, `[tasks, batch, units]`.
      temperature: `[tasks]`, positive.

    Returns:
      `[tasks, 2, batch, units]`: the error of the batch as it is, and that of its second view.
    """
    cold = 1.0 / temperature[:, None, None]
    (first, size), (second, view_size) = _direction(pre), _direction(view)
    alike = cold * tf.matmul(first, second, transpose_b=True)
    itself = tf.eye(pre.shape[1], dtype=pre.dtype)
    # How much nearer the two views of an example should be, less how near each is to the others already.
    pull = cold * (itself - 0.5 * (tf.nn.softmax(alike, axis=2) + tf.nn.softmax(alike, axis=1)))
    errors = tf.matmul(pull, second), tf.matmul(pull, first, transpose_a=True)
    return tf.stack([_across(errors[0], first, size), _across(errors[1], second, view_size)], axis=1)


def _direction(activity):
    """`activity [tasks, batch, units]` at length 1, and what each example was multiplied with."""
    factor = tf.math.rsqrt(tf.reduce_sum(tf.square(activity), axis=-1, keepdims=True) + 1e-6)
    return activity * factor, factor


def _across(errors, direction, factor):
    """Errors of a direction as errors of the activity: what lies along it changes the length only."""
    return factor * (errors - direction * tf.reduce_sum(errors * direction, axis=-1, keepdims=True))
