"""A learned network as a Keras model of stock layers, which needs nothing of this package to be loaded or trained further."""

import keras
import numpy as np

from meta_rules.column_scaling import ColumnMap, column_map
from meta_rules.networks import LENGTH_EPSILON, shortens

#: Keras's names of the activations; `step` has none.
ACTIVATIONS = {name: name for name in ("relu", "leaky_relu", "elu", "tanh", "sigmoid", "linear")} | {
    "swish": "silu"
}


def input_map(learner):
    """What brings a learner's rows to what its first layer reads, a `ColumnMap` in float64."""
    learned, network = learner.learned_, learner.network_
    mean, deviation = (
        np.zeros_like(learned["mean_0"], np.float64),
        np.ones_like(learned["mean_0"], np.float64),
    )
    if network["standardise_inputs"]:
        mean = learned["mean_0"].astype(np.float64)
        # As in `BaseNetwork`.
        deviation = np.sqrt(learned["variance_0"].astype(np.float64) + 1e-12) + 0.1
    if learner.scaler_ is None:
        return ColumnMap(None, mean, deviation, None)
    squash, offset, scale, mixing = column_map(learner.scaler_)
    if mixing is None:
        return ColumnMap(squash, offset + scale * mean, scale * deviation, None)
    # What comes off after the mixing, as something that comes off before it.
    return ColumnMap(squash, offset + scale * np.linalg.solve(mixing, mean), scale, mixing / deviation)


def stock_model(learner):
    """The network of a fitted `RuleLearner` as layers Dense, BatchNormalization, Activation and, where features
    keep only a part of their length, RMSNormalization.

    The first layer scales the inputs as in `fit`; where `scaling` squashes them two layers do that before it, and where it
    mixes them one does after it. None of these is trainable, so they do the same in training.

    Returns:
      A `keras.Model`, `[batch, columns] -> [batch, features]`.

    Raises:
      ValueError: Keras has no such activation.
    """
    learned, network = learner.learned_, learner.network_
    if network["activation"] not in ACTIVATIONS:
        raise ValueError(f"Keras has no activation {network['activation']!r}.")
    squash, offset, deviation, mixing = input_map(learner)
    current = inputs = keras.Input([len(offset)], name="rows")
    weights = []

    def scaled(current, offset, deviation, name):
        # Epsilon 0: the variance is exact, and may be smaller than any epsilon.
        scale = keras.layers.BatchNormalization(
            center=False, scale=False, epsilon=0.0, trainable=False, name=name
        )
        weights.append((scale, [offset.astype("float32"), np.square(deviation).astype("float32")]))
        return scale(current)

    if squash is not None:
        current = keras.layers.Activation("softsign", name="squash")(scaled(current, *squash, "count"))
    current = scaled(current, offset, deviation, "scale")
    if mixing is not None:
        mix = keras.layers.Dense(len(offset), use_bias=False, trainable=False, name="mix")
        current = mix(current)
        weights.append((mix, [mixing]))
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
    for layer, values in weights:
        layer.set_weights(values)
    return model
