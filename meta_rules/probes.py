"""Meta-objectives: how good are the features of a network that learned without labels?

The few-shot ridge probe fits a linear readout to a few labelled examples in closed form and is scored on others
(Metz et al. 2019, section 3.3). Everything is differentiable and has a leading task axis.
"""

from typing import NamedTuple

import tensorflow as tf

#: Length at which a prediction is read as logits. A right one of that length is 3,000 times as sure of its class as of another.
CONFIDENCE = 8.0


class ProbeResult(NamedTuple):
    """What the ridge probe found; losses and accuracies are `[tasks]`.

    Attributes:
      loss: the meta-loss, query error plus the ridge term.
      query_error, support_error: squared error of the (normalised) predictions, summed over classes, mean over examples.
      ridge_term: ridge times the squared weights, a support example.
      query_accuracy, support_accuracy: fraction right.
      query_cross_entropy: of the labels and a softmax over the prediction at length `CONFIDENCE`, mean over examples.
      weights: `[tasks, features + 1, classes]`, the last row the intercept.
    """

    loss: tf.Tensor
    query_error: tf.Tensor
    support_error: tf.Tensor
    ridge_term: tf.Tensor
    query_accuracy: tf.Tensor
    support_accuracy: tf.Tensor
    query_cross_entropy: tf.Tensor
    weights: tf.Tensor


def ridge_weights(features, targets, ridge):
    """Ridge regression with an unpenalised intercept, in closed form.

    Centring both sides removes the intercept from the system; the smaller of the two equivalent systems (features x
    features, or examples x examples) is then solved by Cholesky.

    Args:
      features: `[tasks, examples, features]`.
      targets: `[tasks, examples, classes]`.
      ridge: penalty on the weights.

    Returns:
      `[tasks, features + 1, classes]`, the last row the intercept.
    """
    feature_mean = tf.reduce_mean(features, axis=1, keepdims=True)
    target_mean = tf.reduce_mean(targets, axis=1, keepdims=True)
    x, y = features - feature_mean, targets - target_mean
    examples, width = x.shape[1], x.shape[2]
    ridge = tf.cast(ridge, x.dtype)
    if width <= examples:
        system = tf.matmul(x, x, transpose_a=True) + ridge * tf.eye(width, dtype=x.dtype)
        weights = tf.linalg.cholesky_solve(tf.linalg.cholesky(system), tf.matmul(x, y, transpose_a=True))
    else:
        system = tf.matmul(x, x, transpose_b=True) + ridge * tf.eye(examples, dtype=x.dtype)
        dual = tf.linalg.cholesky_solve(tf.linalg.cholesky(system), y)
        weights = tf.matmul(x, dual, transpose_a=True)
    return tf.concat([weights, target_mean - tf.matmul(feature_mean, weights)], axis=1)


def ridge_probe(
    support,
    support_labels,
    query,
    query_labels,
    ridge=0.1,
    centre_targets=True,
    normalise_predictions=True,
    zero_one_labels=True,
    query_weight=1.0,
):
    """Fits the ridge probe on the support examples and scores it on the query examples.

    Args:
      support: features `[tasks, support, features]`.
      support_labels: one-hot `[tasks, support, classes]`.
      query, query_labels: the same for the query examples.
      ridge: penalty on the weights.
      centre_targets: centre the targets and scale them to unit length on average.
      normalise_predictions: scale each query prediction to unit length (cosine distance).
      zero_one_labels: targets 0 and 1; else -1 and 1.
      query_weight: weight of the query error against the support error.

    Returns:
      `ProbeResult`.
    """

    def prepared(labels):
        labels = labels if zero_one_labels else 2.0 * labels - 1.0
        if not centre_targets:
            return labels
        labels = labels - tf.reduce_mean(labels, axis=[1, 2], keepdims=True)
        length = tf.reduce_mean(
            tf.reduce_sum(tf.square(labels), axis=2, keepdims=True), axis=1, keepdims=True
        )
        return labels * tf.math.rsqrt(length + 1e-12)

    def error(prediction, target):
        return tf.reduce_mean(tf.reduce_sum(tf.square(prediction - target), axis=2), axis=1)

    def accuracy(prediction, labels):
        right = tf.equal(tf.argmax(prediction, axis=2), tf.argmax(labels, axis=2))
        return tf.reduce_mean(tf.cast(right, prediction.dtype), axis=1)

    support_target, query_target = prepared(support_labels), prepared(query_labels)
    weights = ridge_weights(support, support_target, ridge)
    support_prediction = tf.matmul(support, weights[:, :-1]) + weights[:, -1:]
    query_prediction = tf.matmul(query, weights[:, :-1]) + weights[:, -1:]
    length = tf.reduce_sum(tf.square(query_prediction), axis=2, keepdims=True)
    direction = query_prediction * tf.math.rsqrt(length + 1e-12)
    if normalise_predictions:
        query_prediction = direction
    query_error = error(query_prediction, query_target)
    cross_entropy = tf.nn.softmax_cross_entropy_with_logits(query_labels, CONFIDENCE * direction)
    support_error = error(support_prediction, support_target)
    penalty = tf.cast(ridge, support.dtype) * tf.reduce_sum(tf.square(weights[:, :-1]), axis=[1, 2])
    ridge_term = penalty / support.shape[1]
    loss = ridge_term + query_weight * query_error + (1.0 - query_weight) * support_error
    return ProbeResult(
        loss,
        query_error,
        support_error,
        ridge_term,
        accuracy(query_prediction, query_labels),
        accuracy(support_prediction, support_labels),
        tf.reduce_mean(cross_entropy, axis=1),
        weights,
    )
