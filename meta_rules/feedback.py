"""How the error signal travels down a base network: one class a scheme, chosen by name.

A rule forms an error at the top and asks the scheme to carry it from unit layer `l` to `l - 1`. Errors are
`[tasks, channels, batch, units]`: with the channel and batch axes beside each other the way down is one matrix product.

| name        | matrix of layer l                | learned by the rule |
|-------------|----------------------------------|---------------------|
| `learned`   | V_l, of its own                  | yes, like W_l       |
| `random`    | V_l, fixed (feedback alignment, Lillicrap et al. 2016) | no |
| `symmetric` | W_l itself                       | with W_l            |
| `direct`    | fixed, from the top to every layer (Nøkland 2016)      | no |
| `none`      | no error below the top           | -                   |
"""

import tensorflow as tf

from meta_rules import stateless
from meta_rules.errors import UserError


def flow_down(errors, matrix):
    """`errors [tasks, channels, batch, out]` through `matrix [tasks, in, out]` -> `[tasks, channels, batch, in]`."""
    tasks, channels, batch, units = tf.unstack(tf.shape(errors))
    flat = tf.reshape(errors, [tasks, channels * batch, units])
    carried = tf.matmul(flat, matrix, transpose_b=True)
    carried = tf.reshape(carried, [tasks, channels, batch, tf.shape(matrix)[1]])
    carried.set_shape([errors.shape[0], errors.shape[1], errors.shape[2], matrix.shape[1]])
    return carried


class Learned:
    """Backward weights V of their own, changed by the rule as W is (Metz et al. 2019)."""

    learned = True
    #: Whether the errors of a hidden layer reach the layers below it.
    carries = True
    #: Whether no error comes down at all.
    silent = False

    def initial(self, layer_sizes, keys, draw):
        """Feedback matrices of a fresh network, one a weight layer.

        Args:
          layer_sizes: units of every layer, input first (numbers or scalar tensors).
          keys: `[tasks, 2]`.
          draw: function of `(keys, rows, columns)` that draws a weight matrix `[tasks, rows, columns]`.
        """
        pairs = zip(layer_sizes[:-1], layer_sizes[1:], strict=True)
        return tuple(draw(stateless.fold(keys, i), *pair) for i, pair in enumerate(pairs))

    def down(self, state, layer, errors, top_errors):
        """Errors of unit layer `layer - 1`, before the rule's normalisation.

        Args:
          state: `NetworkState`.
          layer: the unit layer the errors come from, 1..L.
          errors: `[tasks, channels, batch, units]` of that layer.
          top_errors: the same of layer L.
        """
        return flow_down(errors, state.feedback[layer - 1])


class Random(Learned):
    """Fixed random backward weights (feedback alignment: Lillicrap et al., Nature Communications 2016)."""

    learned = False


class Symmetric:
    """The forward weights carry the error back, as in backpropagation: the transport that biology is thought to lack."""

    learned = False
    carries = True
    silent = False

    def initial(self, layer_sizes, keys, draw):
        """No matrices of its own."""
        return ()

    def down(self, state, layer, errors, top_errors):
        """Errors through W transposed; see `Learned.down`."""
        return flow_down(errors, state.kernels[layer - 1])


class Direct:
    """The top error reaches every layer through a fixed random matrix (Nøkland, NeurIPS 2016)."""

    learned = False
    carries = False
    silent = False

    def initial(self, layer_sizes, keys, draw):
        """One matrix `[tasks, units, top units]` for every layer below the top; see `Learned.initial`."""
        return tuple(
            draw(stateless.fold(keys, i), size, layer_sizes[-1]) for i, size in enumerate(layer_sizes[:-1])
        )

    def down(self, state, layer, errors, top_errors):
        """The top error, whatever the layer; see `Learned.down`."""
        return flow_down(top_errors, state.feedback[layer - 1])


class NoFeedback:
    """Only the top layer has an error; those below see zeros."""

    learned = False
    carries = False
    silent = True

    def initial(self, layer_sizes, keys, draw):
        """No matrices."""
        return ()

    def down(self, state, layer, errors, top_errors):
        """Zeros; see `Learned.down`."""
        below = state.kernels[layer - 1][:, None, None, :, 0]
        return tf.zeros_like(errors[..., :1]) * tf.zeros_like(below)


SCHEMES = {
    "learned": Learned,
    "random": Random,
    "symmetric": Symmetric,
    "direct": Direct,
    "none": NoFeedback,
}


def scheme(name):
    """The feedback scheme of that name.

    Raises:
      UserError: no such scheme.
    """
    if name not in SCHEMES:
        raise UserError(f"Unknown feedback scheme {name!r}; known: {', '.join(SCHEMES)}.")
    return SCHEMES[name]()
