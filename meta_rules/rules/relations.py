"""What keeps the relations between examples: features are to be as near each other as their inputs are.

A classifier of few labels can only find what the features keep, and where kinds are dozens neither classes nor a contrast
keep what principal components do. Relations do. With u the direction of a layer's activity z, and x an input less its mean
over the batch, the objective is

    mean_i sum_j t_ij log r_ij            t_ij ~ exp(cos(x_i, x_j) / temperature),  r_ij ~ exp(u_i . u_j / temperature)

over the examples of the batch as they are, both t and r with rows that sum to 1. The inputs are taken as they came and not
divided by their deviations, so what varies most counts most, as in principal components. The softer the temperature, the
more of the far relations are kept; it is the same on both sides, because otherwise angles could not be the same.

Source: Hinton and Roweis, "Stochastic neighbor embedding", NIPS 2002, by a network as in van der Maaten, "Learning a
parametric embedding by preserving local structure", AISTATS 2009; there by distances, here by angles, an example counting as
its own neighbour. The errors are the gradient in closed form.
"""

from typing import NamedTuple

import tensorflow as tf

from meta_rules.rules.contrast import contrast_errors
from meta_rules.rules.local import centred, cosines


class Kept(NamedTuple):
    """How far a rule keeps relations, and which.

    Attributes:
      share: `[tasks]`, in [0, 1]; the rest is for other objectives.
      wanted: t above, `[tasks, batch, batch]`.
    """

    share: tf.Tensor
    wanted: tf.Tensor


def relations(inputs, temperature):
    """How near every example is to every other, t above: `[tasks, batch, batch]`, every row sums to 1.

    Args:
      inputs: as they came, `[tasks, batch, in]`.
      temperature: `[tasks]`, positive.
    """
    return tf.nn.softmax(cosines(centred(inputs)) / temperature[:, None, None], axis=2)


def relation_errors(pre, temperature, wanted):
    """Gradient of the objective above with respect to a layer's activity, but for the factor `1 / batch`.

    Args:
      pre: z of the batch as it is, `[tasks, batch, units]`.
      temperature: `[tasks]`, positive.
      wanted: see `relations`.

    Returns:
      `[tasks, batch, units]`.
    """
    # The contrast of the batch with itself: both of its views are the same activity and so are their errors, which add.
    return 2.0 * contrast_errors(pre, pre, temperature, wanted)[:, 0]
