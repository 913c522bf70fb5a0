"""Sanger's generalised Hebbian algorithm: unit after unit finds the next principal component.

Source: T. D. Sanger, "Optimal unsupervised learning in a single-layer linear feedforward neural network",
Neural Networks 2, 1989.
"""

import tensorflow as tf

from meta_rules.configuration import configurable
from meta_rules.rules.base import register
from meta_rules.rules.hand_designed import HandDesignedRule
from meta_rules.rules.local import centred, mean_product, mean_square


@register("sanger")
@configurable
class SangerRule(HandDesignedRule):
    """`dW_ij = step * mean_batch(x_i y_j - y_j sum_{k <= j} y_k W_ik) / power_j`, with y = x W.

    x is centred over the batch. power_j is `mean_batch(y_j^2)` plus 1% of the layer's mean: the step is
    relative to the unit's own power, so that later units, which are left with little variance, do not wait
    for ever, and those left with none do not amplify noise. Not neuron-local: a unit subtracts what the units
    before it have explained, for which it must know their weights.

    Args:
      step: step size, in (0, 1].
      seed: see `UpdateRule`.
    """

    neuron_local = False

    def __init__(self, step: float = 0.02, seed: int = 0, **kwargs):
        super().__init__({"step": step}, seed=seed, **kwargs)

    def update_layer(self, steps, layer, seen):
        """See `HandDesignedRule.update_layer`."""
        x = centred(seen.below)
        y = x @ layer.kernel
        power = mean_square(y)
        power += 0.01 * tf.reduce_mean(power, axis=-1, keepdims=True) + 1e-8
        # Row k, column j of the correlation matters to unit j only where k <= j: its upper triangle.
        explained = layer.kernel @ tf.linalg.band_part(mean_product(y, y), 0, -1)
        change = (mean_product(x, y) - explained) / power
        return layer._replace(kernel=layer.kernel + steps["step"] * change)
