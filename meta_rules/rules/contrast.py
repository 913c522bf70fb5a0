"""What tells an example from the others: its second view should be like its first, and unlike everybody else's.

Where there are more classes than units, units that each stand for a class cannot tell them apart; directions can. With u the
direction of a layer's activity z, u' that of the second view, the objective is

    mean_i sum_j s_ij [ log (a_ij / sum_k a_ik) + log (a_ji / sum_k a_ki) ] / 2            a_ij = exp(u_i . u'_j / temperature)

over the examples of the batch, where s_ij says whom example i seeks: itself, and to some share the example that is nearest to
it by the inputs, which is often of its kind. The colder, the more an example is itself and not its kind: examples of one
class are driven apart too, so it is for units of its own, beside those that stand for classes (see `consistency.py`).

Source: Chen, Kornblith, Norouzi and Hinton, "A simple framework for contrastive learning of visual representations", ICML
2020, section 2.1, here between the two views only. Neighbours: Dwibedi et al., "With a little help from my friends", ICCV
2021, there by the features. The errors are the gradient in closed form.
"""

import tensorflow as tf

from meta_rules.rules.local import cosines, direction


def sought_examples(inputs, neighbours=0.0):
    """Whom each example seeks in the other view, s above: `[tasks, batch, batch]`, every row sums to 1.

    Args:
      inputs: `[tasks, batch, in]`, of one scale.
      neighbours: share of the nearest other example, by the angle between inputs; the rest is the example's own.
    """
    itself = tf.eye(inputs.shape[1], dtype=inputs.dtype)
    if not neighbours:
        return itself[None]
    alike = cosines(inputs) - 4.0 * itself
    nearest = tf.one_hot(tf.argmax(alike, axis=2, output_type=tf.int32), inputs.shape[1], dtype=inputs.dtype)
    return (1.0 - neighbours) * itself + neighbours * nearest


def contrast_errors(pre, view, temperature, sought):
    """Gradient of the objective above with respect to a layer's activity, but for the factor `1 / batch`.

    Args:
      pre, view: z of the two views, `[tasks, batch, units]`.
      temperature: `[tasks]`, positive.
      sought: see `sought_examples`.

    Returns:
      `[tasks, 2, batch, units]`: the error of the batch as it is, and that of its second view.
    """
    cold = 1.0 / temperature[:, None, None]
    (first, size), (second, view_size) = direction(pre), direction(view)
    alike = cold * tf.matmul(first, second, transpose_b=True)
    # How much nearer two views should be, less how near they are already.
    found = tf.nn.softmax(alike, axis=2) + tf.nn.softmax(alike, axis=1)
    pull = 0.5 * cold * (sought + tf.linalg.matrix_transpose(sought) - found)
    errors = tf.matmul(pull, second), tf.matmul(pull, first, transpose_a=True)
    return tf.stack([_across(errors[0], first, size), _across(errors[1], second, view_size)], axis=1)


def _across(errors, along, factor):
    """Errors of a direction as errors of the activity: what lies along it changes the length only."""
    return factor * (errors - along * tf.reduce_sum(errors * along, axis=-1, keepdims=True))
