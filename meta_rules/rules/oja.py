"""Oja's rule: Hebbian learning whose decay keeps the weights at unit length.

Source: E. Oja, "A simplified neuron model as a principal component analyzer", Journal of Mathematical Biology
15, 1982.
"""

from meta_rules.configuration import configurable
from meta_rules.rules.base import register
from meta_rules.rules.hand_designed import HandDesignedRule
from meta_rules.rules.local import centred, mean_product, mean_square


@register("oja")
@configurable
class OjaRule(HandDesignedRule):
    """`dW_ij = step * mean_batch(x_i y_j - y_j^2 W_ij) / mean_batch(y_j^2)`, with y = x W.

    x is centred over the batch. Each unit's step is taken relative to the power of its own current, so that
    one step size does for any data: a step of 1 is a step of the power method. The units of a layer do not
    know of one another: *all* of them find the first principal component of what they read, up to the sign.
    For different features use `sanger`. The rule is neuron-local.

    Args:
      step: step size, in (0, 1].
      seed: see `UpdateRule`.
    """

    def __init__(self, step: float = 0.02, seed: int = 0, **kwargs):
        super().__init__({"step": step}, seed=seed, **kwargs)

    def update_layer(self, steps, layer, seen):
        """See `HandDesignedRule.update_layer`."""
        x = centred(seen.below)
        y = x @ layer.kernel
        power = mean_square(y)
        change = (mean_product(x, y) - layer.kernel * power) / (power + 1e-8)
        return layer._replace(kernel=layer.kernel + steps["step"] * change)
