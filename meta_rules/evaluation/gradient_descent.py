"""Keras models with the architecture of the base network, trained by gradient descent from scratch, over and over."""

import keras
import numpy as np
import tensorflow as tf

from meta_rules.networks import ACTIVATIONS


def base_layers(sizes, activation, name):
    """Keras's counterpart of the layers of a `BaseNetwork`: `activation(batch_norm(x W) + b)` for every size."""
    layers = []
    for i, size in enumerate(sizes):
        layers += [
            keras.layers.Dense(size, use_bias=False, name=f"{name}_{i}"),
            keras.layers.BatchNormalization(scale=False, epsilon=1e-6, momentum=0.9),
            keras.layers.Activation(ACTIVATIONS[activation]),
        ]
    return layers


class Standardised:
    """Inputs as the base network reads them: `(x - mean) / (deviation + 0.1)`, of the unlabelled examples."""

    def __init__(self, unlabelled):
        self._mean, self._deviation = unlabelled.mean(axis=0), unlabelled.std(axis=0)

    def __call__(self, examples):
        """Standardised `[examples, inputs]`."""
        return (examples - self._mean) / (self._deviation + 0.1)


class Descent:
    """Trains one Keras model again and again, each time from fresh weights, with Adam and one compiled program.

    Args:
      model: a built `keras.Model`.
      loss: function of `(model, examples, labels, seed [2])` -> scalar.
      learning_rate: of Adam.
      batch_size: examples a step.
    """

    def __init__(self, model, loss, learning_rate, batch_size):
        self.model, self._loss, self._batch_size = model, loss, batch_size
        self._optimizer = keras.optimizers.Adam(learning_rate)
        self._optimizer.build(model.trainable_variables)
        self._start = [variable.numpy() for variable in self._optimizer.variables]

    def restart(self, seed):
        """Fresh weights: Glorot's kernels, zero shifts, and batch statistics and moments as at the start."""
        for variable, value in zip(self._optimizer.variables, self._start, strict=True):
            variable.assign(value)
        random = np.random.default_rng(seed)
        for variable in self.model.variables:
            if len(variable.shape) == 2:
                limit = (6.0 / sum(variable.shape)) ** 0.5
                variable.assign(random.uniform(-limit, limit, variable.shape))
            else:
                variable.assign(np.full(variable.shape, float(variable.name == "moving_variance")))

    def run(self, examples, labels, steps, random):
        """Makes `steps` steps on random batches.

        Args:
          examples: `[examples, inputs]`.
          labels: int32 `[examples]`.
          steps: how many.
          random: `numpy.random.Generator` of the batches.
        """
        size = min(self._batch_size, len(labels))
        # Every example once before any comes again.
        rounds = [random.permutation(len(labels)) for _ in range(-(-steps * size // len(labels)))]
        batches = np.concatenate(rounds)[: steps * size].reshape(steps, size)
        self._steps(
            tf.constant(examples, tf.float32),
            tf.constant(labels, tf.int32),
            tf.constant(batches, tf.int32),
            tf.constant(random.integers(2**31, size=2), tf.int32),
        )

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.float32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([2], tf.int32),
        ],
        autograph=False,
    )
    def _steps(self, examples, labels, batches, seed):
        def step(i):
            rows = batches[i]
            batch = tf.ensure_shape(tf.gather(examples, rows), [None, self.model.input_shape[1]])
            with tf.GradientTape() as tape:
                loss = self._loss(self.model, batch, tf.gather(labels, rows), seed + i)
            variables = self.model.trainable_variables
            self._optimizer.apply(tape.gradient(loss, variables), variables)
            return i + 1

        tf.while_loop(lambda i: i < tf.shape(batches)[0], step, [tf.constant(0)])


class Snapshot:
    """A Keras model as it is now, while the model itself goes on to be trained on something else.

    Args:
      model: the model.
      standardised: `Standardised` for its inputs.
    """

    def __init__(self, model, standardised):
        self._model, self._weights, self._standardised = model, model.get_weights(), standardised

    def __call__(self, examples):
        """What the model puts out for `[examples, inputs]`, as an array, batch statistics frozen."""
        self._model.set_weights(self._weights)
        return np.asarray(self._model(tf.constant(self._standardised(examples), tf.float32), training=False))
