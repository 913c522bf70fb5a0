"""The rule of Bienenstock, Cooper and Munro: Hebbian above a threshold that slides with the activity.

Source: E. L. Bienenstock, L. N. Cooper and P. W. Munro, "Theory for the development of neuron selectivity",
Journal of Neuroscience 2, 1982; the mean square as threshold, N. Intrator and L. N. Cooper, Neural Networks
5, 1992; division by the threshold, C. C. Law and L. N. Cooper, PNAS 91, 1994.
"""

import tensorflow as tf

from meta_rules.configuration import configurable
from meta_rules.rules.base import register
from meta_rules.rules.hand_designed import HandDesignedRule
from meta_rules.rules.local import mean_product, mean_square


@register("bcm")
@configurable
class BCMRule(HandDesignedRule):
    """`dW_ij = step / in * mean_batch(x_i y_j (y_j - t_j)) / (t_j mean_batch(x_i^2))`, with y = x W.

    The threshold t_j is a running mean of y_j^2; it must slide faster than the weights change. A unit becomes
    selective: of K linearly independent inputs of equal frequency it answers one with K and the others with
    0. Dividing by the sender's power and the number of inputs, `in`, moves no fixed point and makes one step
    size do for any data. The rule is neuron-local.

    Args:
      step: step size, in (0, 1].
      threshold_step: share of the newest batch in the threshold, in (0, 1].
      seed: see `UpdateRule`.
    """

    def __init__(self, step: float = 0.02, threshold_step: float = 0.2, seed: int = 0, **kwargs):
        super().__init__({"step": step, "threshold_step": threshold_step}, seed=seed, **kwargs)

    def layer_memory(self, tasks, units):
        """The threshold of each unit, `[tasks, 1, units]`, 1 at first."""
        return tf.ones([tasks, 1, units], self.dtype)

    def update_layer(self, steps, layer, seen):
        """See `HandDesignedRule.update_layer`."""
        x = seen.below
        y = x @ layer.kernel
        threshold = layer.memory + steps["threshold_step"] * (mean_square(y) - layer.memory)
        power = tf.linalg.matrix_transpose(mean_square(x)) + 1e-6
        change = mean_product(x, y * (y - threshold)) / (power * (threshold + 1e-6))
        inputs = tf.cast(tf.shape(x)[-1], x.dtype)
        return layer._replace(kernel=layer.kernel + steps["step"] / inputs * change, memory=threshold)
