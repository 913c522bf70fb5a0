"""What the hand-designed rules share: textbook rules of one layer, run in every layer of a base network.

They have no error signal, so no feedback matrices, and a step size or two as their only meta-parameters: each
can be used as it comes, or have its step sizes meta-trained. Weights are scaled as in the textbooks: a
receptive field starts with unit *length*. The base network batch-normalises `x W`, so the length of a column
is the rule's own affair.
"""

import abc
import math
from typing import NamedTuple

import tensorflow as tf

from meta_rules.errors import UserError
from meta_rules.networks import NetworkState
from meta_rules.rules.base import Parameter, UpdateRule


class Seen(NamedTuple):
    """What a hand-designed rule sees of one layer.

    Attributes:
      below: x, the activity that the layer reads, `[tasks, batch, in]`.
      pre: z, its batch-normalised current, `[tasks, batch, out]`.
    """

    below: tf.Tensor
    pre: tf.Tensor


class Layer(NamedTuple):
    """What a hand-designed rule changes of one layer.

    Attributes:
      kernel: `[tasks, in, out]`.
      bias: `[tasks, 1, out]`.
      memory: a nest of `[tasks, ...]`.
    """

    kernel: tf.Tensor
    bias: tf.Tensor
    memory: tuple = ()


class HandDesignedRule(UpdateRule, abc.ABC):
    """Base class of the hand-designed rules; see the module's text.

    A rule's base network standardises its inputs where that was found to give better features and changes
    nothing of the textbook result, which then holds for the standardised inputs; rules that need them centred
    do so themselves.

    Args:
      steps: dict of name -> step size in (0, 1]: the initial values of the meta-parameters, which are their
        logarithms.
      seed: only for the sake of one interface; nothing here is random but the networks.

    Raises:
      UserError: a step size outside of (0, 1].
    """

    standardise_inputs = False

    def __init__(self, steps, seed=0, **kwargs):
        super().__init__(feedback="none", seed=seed, **kwargs)
        for name, size in steps.items():
            if not 0.0 < size <= 1.0:
                raise UserError(f"{type(self).__name__}.{name} must be above 0 and at most 1, got {size}.")
        self.steps = dict(steps)
        self.build_parameters()

    @abc.abstractmethod
    def update_layer(self, steps, layer, seen):
        """The `Layer` after one application.

        Args:
          steps: dict of name -> `[tasks, 1, 1]` step size.
          layer: `Layer` as it is.
          seen: `Seen`.
        """

    def layer_memory(self, tasks, units):
        """What a layer of so many units remembers besides its weights; both numbers may be scalar tensors."""
        return ()

    def rule_config(self):
        """The constructor's arguments."""
        return {**self.steps, "seed": self.seed}

    def parameters(self):
        """The logarithms of the step sizes."""
        return {name: Parameter((), value=math.log(size)) for name, size in self.steps.items()}

    def initial_kernel(self, keys, rows, columns):
        """Random receptive fields `[tasks, rows, columns]`, each column of unit length."""
        return super().initial_kernel(keys, rows, columns) * tf.math.rsqrt(tf.cast(rows, self.dtype))

    def initial_memory(self, layer_sizes, keys):
        """`layer_memory` of every layer."""
        return tuple(self.layer_memory(tf.shape(keys)[0], units) for units in layer_sizes[1:])

    def update(self, theta, network, state, inputs, keys):
        """One application; see `UpdateRule.update`."""
        # Larger steps than 1 overshoot the target that every one of these rules moves to.
        steps = {name: tf.exp(tf.minimum(value, 0.0))[:, None, None] for name, value in theta.items()}
        activities = network.activities(state, inputs)
        layers = []
        for i, (kernel, bias, memory) in enumerate(
            zip(state.kernels, state.biases, state.memory, strict=True)
        ):
            below = activities.post[i] if i else activities.pre[0]
            layer = Layer(kernel, bias[:, None, :], memory)
            layers.append(self.update_layer(steps, layer, Seen(below, activities.pre[i + 1])))
        return NetworkState(
            tuple(layer.kernel for layer in layers),
            tuple(layer.bias[:, 0, :] for layer in layers),
            state.feedback,
            tuple(layer.memory for layer in layers),
        )
