"""A learned network as a Keras model of stock layers, which needs nothing of this package to be loaded or trained further."""

import keras
import numpy as np

from meta_rules.column_scaling import affine
from meta_rules.networks import LENGTH_EPSILON, shortens

#: Keras's names of the activations; `step` has none.
ACTIVATIONS = {name: name for name in ("relu", "leaky_relu", "elu", "tanh", "sigmoid", "linear")} | {
    "swish": "silu"
}


def input_map(learner):
    """What brings a learner's rows to what its first layer reads, `((X - offset) / deviation) @ mixing`, in float64.

    Returns:
      `offset [columns]`, `deviation [columns]` and `mixing [columns, columns]`, or None where nothing is mixed.
    """
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
        return mean, deviation, None
    offset, scale, mixing = affine(learner.scaler_)
    if mixing is None:
        return offset + scale * mean, scale * deviation, None
    # What comes off after the mixing, as something that comes off before it.
    return offset + scale * np.linalg.solve(mixing, mean), scale, mixing / deviation


def stock_model(learner):
    """The network of a fitted `RuleLearner` as layers Dense, BatchNormalization, Activation and, where features
    keep only a part of their length, RMSNormalization.

    The first layer scales the inputs as in `fit`, and a second one mixes them where `scaling` does; neither is trainable, so
    they do so in training too.

    Returns:
      A `keras.Model`, `[batch, columns] -> [batch, features]`.

    Raises:
      ValueError: Keras has no such activation.
    """
    learned, network = learner.learned_, learner.network_
    if network["activation"] not in ACTIVATIONS:
        raise ValueError(f"Keras has no activation {network['activation']!r}.")
    mean, deviation, mixing = input_map(learner)
    inputs = keras.Input([len(mean)], name="rows")
    # Epsilon 0: the variance is exact, and may be smaller than any epsilon.
    scale = keras.layers.BatchNormalization(
        center=False, scale=False, epsilon=0.0, trainable=False, name="scale"
    )
    current, weights = scale(inputs), []
    if mixing is not None:
        mix = keras.layers.Dense(len(mean), use_bias=False, trainable=False, name="mix")
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
    scale.set_weights([mean.astype("float32"), np.square(deviation).astype("float32")])
    for layer, values in weights:
        layer.set_weights(values)
    return model
