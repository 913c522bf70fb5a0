"""Competitive learning: the unit whose receptive field is nearest to the input moves towards it.

Source: D. E. Rumelhart and D. Zipser, "Feature discovery by competitive learning", Cognitive Science 9, 1985;
the handicap of frequent winners, without which most units never win: S. C. Ahalt et al., "Competitive
learning algorithms for vector quantization", Neural Networks 3, 1990.
"""

import tensorflow as tf

from meta_rules.configuration import configurable
from meta_rules.errors import UserError
from meta_rules.rules.base import register
from meta_rules.rules.hand_designed import HandDesignedRule
from meta_rules.rules.local import winners


@register("competitive")
@configurable
class CompetitiveRule(HandDesignedRule):
    """`dW_ij = step * (mean of x_i over the inputs that unit j won - W_ij)`; a unit that won none stays.

    So each unit's weights go to the centre of a cluster (of the standardised inputs, in the first layer). The
    winner has the smallest `|x - W_j|^2 (n f_j)^conscience`, where f_j is how often unit j has won of late
    and n the number of units. It does not depend on the scale of the data. Not neuron-local: who wins is
    decided in the whole layer.

    Args:
      step: step size, in (0, 1].
      conscience: exponent of the handicap; 0 is the plain rule, in which a bad start leaves units without a
        single win for ever.
      memory: share of the newest batch in the running frequency.
      seed: see `UpdateRule`.

    Raises:
      UserError: a negative conscience, a share outside of (0, 1].
    """

    neuron_local = False
    standardise_inputs = True

    def __init__(
        self, step: float = 0.1, conscience: float = 1.0, memory: float = 0.05, seed: int = 0, **kwargs
    ):
        if conscience < 0.0 or not 0.0 < memory <= 1.0:
            raise UserError(
                "CompetitiveRule: conscience must not be negative and memory must be in (0, 1], "
                f"got {conscience} and {memory}."
            )
        super().__init__({"step": step}, seed=seed, **kwargs)
        self.conscience, self.memory = conscience, memory

    def rule_config(self):
        """The constructor's arguments."""
        return {**super().rule_config(), "conscience": self.conscience, "memory": self.memory}

    def layer_memory(self, tasks, units):
        """How often each unit wins, `[tasks, 1, units]`; all alike at first."""
        return tf.fill([tasks, 1, units], 1.0 / tf.cast(units, self.dtype))

    def update_layer(self, steps, layer, seen):
        """See `HandDesignedRule.update_layer`."""
        x, frequency = seen.below, layer.memory
        distance = (
            tf.reduce_sum(tf.square(x), axis=-1, keepdims=True)
            - 2.0 * (x @ layer.kernel)
            + tf.reduce_sum(tf.square(layer.kernel), axis=-2, keepdims=True)
        )
        units = tf.cast(tf.shape(distance)[-1], distance.dtype)
        handicap = tf.pow(units * frequency + 1e-3, self.conscience)
        won = winners(-tf.maximum(distance, 0.0) * handicap)
        wins = tf.reduce_sum(won, axis=-2, keepdims=True)
        mean = tf.matmul(x, won, transpose_a=True) / tf.maximum(wins, 1.0)
        change = mean - layer.kernel * tf.minimum(wins, 1.0)
        share = wins / tf.reduce_sum(wins, axis=-1, keepdims=True)
        return layer._replace(
            kernel=layer.kernel + steps["step"] * change, memory=frequency + self.memory * (share - frequency)
        )
