"""What a layer's units ought to say: the same of an example seen twice, something certain, and something different of others.

A second view of the batch has a share of its inputs replaced by those of other examples. Read the layer's activity as a
guess of one of `units` classes, `p = softmax(sharpness * z)`; then the three wishes are the objective

    mean_batch [ p . log p' ]  -  certainty * mean_batch H(p)  +  balance * H(mean_batch p)          p' of the second view

whose gradient with respect to z and z' are the errors below. Nothing in it needs a label or knows what an input is.

Source: information maximisation (Krause, Perona and Gomes, NeurIPS 2010) with self-augmentation (Hu et al., "Learning
discrete representations via information maximizing self-augmented training", ICML 2017), here with corrupted inputs
(Bahri et al., "SCARF", ICLR 2022) instead of adversarial ones, and p taken as a constant in the first term.
"""

import tensorflow as tf

from meta_rules import stateless


def second_view(inputs, share, keys):
    """The batch with a share of its entries replaced by the same entry of an example drawn at random.

    Args:
      inputs: `[tasks, batch, in]`.
      share: chance of an entry to be replaced, in (0, 1).
      keys: `[tasks, 2]`.
    """
    tasks, batch, width = tf.unstack(tf.shape(inputs))
    words = stateless.bits(stateless.fold(keys, "second view"), batch * width)
    words = tf.reshape(words, [tasks, width, batch])
    # One random word an entry: its lower half decides whether, its upper half by whom.
    replaced = tf.bitwise.bitwise_and(words, tf.constant(0xFFFF, tf.uint32))
    replaced = tf.cast(replaced, tf.int32) < int(share * 0x10000)
    donor = tf.cast(tf.bitwise.right_shift(words, tf.constant(16, tf.uint32)), tf.int32) % batch
    columns = tf.transpose(inputs, [0, 2, 1])
    given = tf.gather(columns, donor, batch_dims=2)
    view = tf.transpose(tf.where(replaced, given, columns), [0, 2, 1])
    view.set_shape(inputs.shape)
    return view


def consistency_errors(pre, view, sharpness, certainty, balance):
    """Gradient of the objective above with respect to a layer's activity, but for the factor `sharpness / batch`.

    Args:
      pre, view: z of the two views, `[tasks, batch, units]`.
      sharpness, certainty, balance: `[tasks]`, positive.

    Returns:
      `[tasks, 2, batch, units]`: the error of the batch as it is, and that of its second view.
    """
    sharpness, certainty, balance = (each[:, None, None] for each in (sharpness, certainty, balance))
    log_p = tf.nn.log_softmax(sharpness * pre, axis=-1)
    p = tf.exp(log_p)
    seen_again = tf.nn.softmax(sharpness * view, axis=-1)
    log_mean = tf.math.log(tf.reduce_mean(p, axis=1, keepdims=True) + 1e-6)
    certain = p * (log_p - tf.reduce_sum(p * log_p, axis=-1, keepdims=True))
    uneven = p * (log_mean - tf.reduce_sum(p * log_mean, axis=-1, keepdims=True))
    return tf.stack([certainty * certain - balance * uneven, p - seen_again], axis=1)


def through_batch_norm(errors, normalised):
    """Errors of a batch-normalised activity as errors of the current behind it, but for the current's deviation.

    Args:
      errors: `[..., batch, units]`.
      normalised: the activity, mean 0 and variance 1 over the batch, of the same shape.
    """
    level = tf.reduce_mean(errors, axis=-2, keepdims=True)
    slope = tf.reduce_mean(errors * normalised, axis=-2, keepdims=True)
    return errors - level - normalised * slope
