"""A learned network as a Keras model of stock layers, which needs nothing of this package to be loaded or trained further."""

import keras
import numpy as np

from meta_rules.column_scaling import offset_and_scale
from meta_rules.networks import LENGTH_EPSILON, shortens

#: Keras's names of the activations; `step` has none.
ACTIVATIONS = {name: name for name in ("relu", "leaky_relu", "elu", "tanh", "sigmoid", "linear")} | {
    "swish": "silu"
}


def input_moments(learner):
    """Mean and deviation `[columns]` (float64) that bring a learner's rows to what its first layer reads."""
    learned, network = learner.learned_, learner.network_
    mean, deviation = (
        np.zeros_like(learned["mean_0"], np.float64),
        np.ones_like(learned["mean_0"], np.float64),
    )
    if network["standardise_inputs"]:
        mean = learned["mean_0"].astype(np.float64)
        # As in `BaseNetwork`.
        deviation = np.sqrt(learned["variance_0"].astype(np.float64) + 1e-12) + 0.1
    if learner.scaler_ is not None:
        offset, scale = offset_and_scale(learner.scaler_)
        mean, deviation = offset + scale * mean, scale * deviation
    return mean, deviation


def stock_model(learner):
    """The network of a fitted `RuleLearner` as layers Dense, BatchNormalization, Activation and, where features
    keep only a part of their length, RMSNormalization.

    The first layer scales the inputs as in `fit`; it is not trainable, so it does so in training too.

    Returns:
      A `keras.Model`, `[batch, columns] -> [batch, features]`.

    Raises:
      ValueError: Keras has no such activation.
    """
    learned, network = learner.learned_, learner.network_
    if network["activation"] not in ACTIVATIONS:
        raise ValueError(f"Keras has no activation {network['activation']!r}.")
    mean, deviation = input_moments(learner)
    inputs = keras.Input([len(mean)], name="rows")
    # Epsilon 0: the variance is exact, and may be smaller than any epsilon.
    scale = keras.layers.BatchNormalization(
        center=False, scale=False, epsilon=0.0, trainable=False, name="scale"
    )
    current, weights = scale(inputs), []
    layer = 1
    while f"kernel_{layer}" in learned:
        dense = keras.layers.Dense(learned[f"kernel_{layer}"].shape[1], use_bias=False, name=f"dense_{layer}")
        normalise = keras.layers.BatchNormalization(
            scale=False, epsilon=network["epsilon"], name=f"batch_norm_{layer}"
        )
        current = normalise(dense(current))
        if f"kernel_{layer + 1}" in learned or not network["linear_top"]:
            activate = keras.layers.Activation(ACTIVATIONS[network["activation"]], name=f"activation_{layer}")
            current = activate(current)
        weights.append((dense, [learned[f"kernel_{layer}"]]))
        weights.append((normalise, [learned[f"{part}_{layer}"] for part in ("bias", "mean", "variance")]))
        layer += 1
    kept = network["length_kept"]
    if shortens(kept, current.shape[-1]):
        # As in `networks.shortened`: a factor before the mean square is one outside of the root.
        shorten = keras.layers.RMSNormalization(
            epsilon=(kept + LENGTH_EPSILON) / (1.0 - kept), name="shortened"
        )
        current = shorten(current)
        weights.append((shorten, [np.full(current.shape[-1], (1.0 - kept) ** -0.5)]))
    model = keras.Model(inputs, current, name="learned_features")
    scale.set_weights([mean.astype("float32"), np.square(deviation).astype("float32")])
    for layer, values in weights:
        layer.set_weights(values)
    return model
