"""Autoencoders with the encoder of the base network: what backpropagation learns from the same examples without labels."""

import keras
import numpy as np
import tensorflow as tf

from meta_rules.configuration import configurable
from meta_rules.evaluation.gradient_descent import Descent, Snapshot, Standardised, base_layers
from meta_rules.evaluation.methods import Method, register


class _Features(Snapshot):
    """An encoder as a model with `transform`."""

    def transform(self, examples):
        """Features `[examples, features]`."""
        return self(examples)


class _Autoencoder(Method):
    """What the two have in common; a subclass gives `build` and `loss`.

    Args:
      steps: steps of Adam on batches of the protocol's size.
      learning_rate: of Adam.
    """

    def __init__(self, steps: int = 1000, learning_rate: float = 1e-3):
        self.steps, self.learning_rate = steps, learning_rate
        self._built = None

    def description(self):
        """The settings."""
        return {"steps": self.steps, "learning_rate": self.learning_rate}

    def build(self, inputs, protocol):
        """`(model, encoder)`: Keras models from `[examples, inputs]`, to what `loss` takes and to features."""
        raise NotImplementedError

    def loss(self, model, examples, labels, seed):
        """The loss, as `Descent` wants it; labels are not looked at."""
        raise NotImplementedError

    def fit(self, draw, labelled=None):
        """See `Method`."""
        key = (draw.unlabelled.shape[1], draw.protocol)
        if self._built is None or self._built[0] != key:
            model, encoder = self.build(*key)
            descent = Descent(model, self.loss, self.learning_rate, draw.protocol.batch_size)
            self._built = (key, descent, encoder)
        _, descent, encoder = self._built
        standardised = Standardised(draw.unlabelled)
        descent.restart(draw.seed)
        no_labels = np.zeros(len(draw.unlabelled), np.int32)
        random = np.random.default_rng(draw.seed)
        descent.run(standardised(draw.unlabelled), no_labels, self.steps, random)
        return {self.steps: _Features(encoder, standardised)}


def _decoder(protocol, inputs):
    """The mirrored layers, with a linear end."""
    layers = base_layers(protocol.hidden[-2::-1], protocol.activation, "decoder")
    return keras.Sequential([*layers, keras.layers.Dense(inputs, name="reconstruction")])


@register("autoencoder")
@configurable
class Autoencoder(_Autoencoder):
    """Autoencoder with squared error on the standardised inputs; the features are the activities of its narrowest layer."""

    def build(self, inputs, protocol):
        """See the base class."""
        start = keras.Input([inputs])
        code = keras.Sequential(base_layers(protocol.hidden, protocol.activation, "encoder"))(start)
        return keras.Model(start, _decoder(protocol, inputs)(code)), keras.Model(start, code)

    def loss(self, model, examples, labels, seed):
        """Mean squared error."""
        return tf.reduce_mean(tf.square(model(examples, training=True) - examples))


@register("vae")
@configurable
class VariationalAutoencoder(_Autoencoder):
    """Variational autoencoder; the features are the means of the code.

    The variance of the output is the one that fits best, in closed form, so that there is no weight between the two terms to
    choose. Sources: D. Kingma and M. Welling, "Auto-encoding variational Bayes", ICLR 2014; O. Rybkin, K. Daniilidis and
    S. Levine, "Simple and effective VAE training with calibrated decoders", ICML 2021, section 3.2.
    """

    def build(self, inputs, protocol):
        """See the base class; the model gives mean and logarithm of the variance of the code, and holds the decoder."""
        start = keras.Input([inputs])
        below = start
        for layer in base_layers(protocol.hidden[:-1], protocol.activation, "encoder"):
            below = layer(below)
        mean = keras.layers.Dense(protocol.features, name="mean")(below)
        log_variance = keras.layers.Dense(protocol.features, name="log_variance")(below)
        self._decode = _decoder(protocol, inputs)
        whole = keras.Model(start, [mean, log_variance, self._decode(mean)])
        self._encode = keras.Model(start, [mean, log_variance])
        return whole, keras.Model(start, mean)

    def loss(self, model, examples, labels, seed):
        """The negative evidence lower bound an input, but for a constant."""
        mean, log_variance = self._encode(examples, training=True)
        noise = tf.random.stateless_normal(tf.shape(mean), seed)
        decoded = self._decode(mean + tf.exp(0.5 * log_variance) * noise, training=True)
        squared = tf.reduce_mean(tf.square(decoded - examples))
        divergence = 0.5 * tf.reduce_sum(tf.square(mean) + tf.exp(log_variance) - 1.0 - log_variance, axis=1)
        return 0.5 * tf.math.log(squared + 1e-8) + tf.reduce_mean(divergence) / model.input_shape[1]
