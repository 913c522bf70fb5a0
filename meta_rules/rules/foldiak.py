"""Földiák's sparse coding: Hebbian feedforward weights, anti-Hebbian lateral ones, and thresholds.

Source: P. Földiák, "Forming sparse representations by local anti-Hebbian learning", Biological Cybernetics
64, 1990.
"""

import tensorflow as tf

from meta_rules.configuration import configurable
from meta_rules.errors import UserError
from meta_rules.rules.base import register
from meta_rules.rules.hand_designed import HandDesignedRule, Layer
from meta_rules.rules.local import mean_product

#: Steepness of a unit's answer, and the Euler steps in which a layer settles: 20 of 0.2, four time constants.
GAIN, SETTLING_STEPS, SETTLING_STEP = 10.0, 20, 0.2


@register("foldiak")
@configurable
class FoldiakRule(HandDesignedRule):
    """A layer's outputs y settle under lateral inhibition, and then

        dW_ij = step * mean_batch(y_j (x_i - W_ij)) / p
        dL_jk = -lateral_step * (mean_batch(y_j y_k) - p^2), never above 0, none of a unit to itself
        db_j  = threshold_step * (p - mean_batch(y_j))

    so that each output is active with probability p and, where the inhibition is not at its bound, two of
    them together with p^2: they are uncorrelated. The base network's z (its batch-normalised current plus b)
    is the feedforward drive, b being minus the threshold; the lateral weights L are the rule's memory. The
    features that the base network gives are taken before the lateral inhibition.

    The rule is neuron-local, where what a unit sees includes its lateral input. Learning uses the settled
    graded outputs, which Földiák rounds to 0 and 1.

    Args:
      step, lateral_step, threshold_step: step sizes, in (0, 1].
      sparsity: p, the activity of a unit aimed at.
      seed: see `UpdateRule`.

    Raises:
      UserError: a sparsity outside of (0, 1).
    """

    standardise_inputs = True

    def __init__(
        self,
        step: float = 0.02,
        lateral_step: float = 0.5,
        threshold_step: float = 0.2,
        sparsity: float = 0.1,
        seed: int = 0,
        **kwargs,
    ):
        if not 0.0 < sparsity < 1.0:
            raise UserError(f"FoldiakRule.sparsity must be between 0 and 1, got {sparsity}.")
        steps = {"step": step, "lateral_step": lateral_step, "threshold_step": threshold_step}
        super().__init__(steps, seed=seed, **kwargs)
        self.sparsity = sparsity

    def rule_config(self):
        """The constructor's arguments."""
        return {**super().rule_config(), "sparsity": self.sparsity}

    def layer_memory(self, tasks, units):
        """The lateral weights `[tasks, units, units]`, none at first."""
        return tf.zeros([tasks, units, units], self.dtype)

    def settle(self, drive, lateral):
        """Outputs `[tasks, batch, units]` in (0, 1) of a layer with feedforward drive `[tasks, batch, units]`
        and lateral weights.

        Euler steps of `dy/dt = sigmoid(gain * (drive + y L)) - y` from y = 0.
        """
        y = tf.zeros_like(drive)
        for _ in range(SETTLING_STEPS):
            y += SETTLING_STEP * (tf.sigmoid(GAIN * (drive + y @ lateral)) - y)
        return y

    def update_layer(self, steps, layer, seen):
        """See `HandDesignedRule.update_layer`."""
        y = self.settle(seen.pre, layer.memory)
        mean = tf.reduce_mean(y, axis=-2, keepdims=True)
        change = (mean_product(seen.below, y) - layer.kernel * mean) / self.sparsity
        together = mean_product(y, y) - self.sparsity**2
        lateral = tf.minimum(layer.memory - steps["lateral_step"] * together, 0.0)
        lateral = tf.linalg.set_diag(lateral, tf.zeros_like(lateral[..., 0]))
        return Layer(
            layer.kernel + steps["step"] * change,
            layer.bias + steps["threshold_step"] * (self.sparsity - mean),
            lateral,
        )
