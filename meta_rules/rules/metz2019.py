"""The update rule as it was published in 2019, to the last quirk, and as fast as this machine's matrix product allows.

One application, from the top down:

    activities    z_l = bn(x_{l-1} W_l) + b_l, x_l = relu(z_l)                   the base network
    top delta     d_L = convolutions of x_L over the batch and over the units
    unit network  h_l = convolutions of [weight statistics, b_l, x_l, z_l, unit identity, d_l] over batch and units
    next delta    delta_l = d_l sigmoid(z_l) + linear(h_l);   d_{l-1} = normalised V_l delta_l
    change        twelve terms of low-rank readouts of h_l and h_{l-1}, W_l and the activities, merged into one matrix
    update        W, V, b  <-  (1 - s) W - s change, s = 1e-4

The convolutions over the batch make the result depend on the *order* of the examples; those over the units, and the unit
identity, on the order of the units. Biases in front of a batch normalisation of the published code change nothing and are
not parameters here; `metz2019_checkpoint` knows them.

Arrays are `[tasks, channels, batch, units]`; see `metz2019_parts`. Source: Metz, Maheswaranathan, Cheung and Sohl-Dickstein,
"Meta-Learning Update Rules for Unsupervised Representation Learning", ICLR 2019, and the code published with it.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from meta_rules import stateless
from meta_rules.configuration import configurable
from meta_rules.errors import UserError
from meta_rules.networks import NetworkState
from meta_rules.rules import metz2019_parts as parts
from meta_rules.rules import metz2019_terms as terms
from meta_rules.rules.base import Parameter, UpdateRule, fan_in, register

#: Weight statistics and bias; then, normalised: x, z, sine, cosine, error channels.
PLAIN_INPUTS = 9
NORMED_INPUTS = 4
#: Convolutions over the units in each block of the unit network.
UNIT_CONVOLUTIONS = 2


class Sweep(NamedTuple):
    """What the way down leaves, one entry a unit layer 0..L, each `[tasks, channels, batch, units]`.

    Attributes:
      errors: d, what the unit network of the layer reads.
      hidden: h, what it computes.
      deltas: delta, what is sent down; None for layer 0.
    """

    errors: tuple
    hidden: tuple
    deltas: tuple


class Change(NamedTuple):
    """How one matrix changes; all `[tasks, in, out]`.

    Attributes:
      core: the merged and normalised terms.
      change: what is subtracted after the step size, core - w / 7.
      terms: the twelve terms by name.
    """

    core: tf.Tensor
    change: tf.Tensor
    terms: dict


@register("metz2019")
@configurable
class Metz2019(UpdateRule):
    """The published rule of Metz et al. 2019. The defaults are the published sizes.

    Its meta-parameters depend on the size of the network's top layer (two convolutions of the top delta take its units as
    channels), and on no other size. Not neuron-local: it normalises over the units of a layer, mixes them in
    its convolutions, and decorrelates them.

    Args:
      output_size: units of the top layer of every network it is used on.
      top_channels: channels within the top delta.
      top_unit_layers: convolutions of the top delta that mix the units of the top layer.
      top_batch_layers: convolutions of the top delta over the batch after those.
      channels: channels of the unit network.
      blocks: blocks of the unit network; each is a convolution over the batch and two over the units.
      error_channels: channels of the error.
      readout_channels: channels of every low-rank readout.
      identical_updates: V changes exactly as W does; else it has terms and coefficients of its own.
      normalise_epsilon: epsilon of the normalisation of the terms.
      step_size: inner step size and weight decay of W, V and b.
      feedback, seed: see `UpdateRule`.

    Raises:
      UserError: a size below one, or separate updates of a V that the feedback scheme does not learn.
    """

    permutation_equivariant = False
    neuron_local = False
    standardise_inputs = False

    def __init__(
        self,
        output_size: int = 32,
        top_channels: int = 64,
        top_unit_layers: int = 2,
        top_batch_layers: int = 2,
        channels: int = 64,
        blocks: int = 2,
        error_channels: int = 32,
        readout_channels: int = 4,
        identical_updates: bool = True,
        normalise_epsilon: float = 1.0,
        step_size: float = 1e-4,
        feedback: str = "learned",
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(feedback=feedback, seed=seed, **kwargs)
        self.output_size = output_size
        self.top_channels = top_channels
        self.top_unit_layers = top_unit_layers
        self.top_batch_layers = top_batch_layers
        self.channels = self.array_channels = channels
        self.blocks = blocks
        self.error_channels = error_channels
        self.readout_channels = readout_channels
        self.identical_updates = identical_updates
        self.normalise_epsilon = normalise_epsilon
        self.step_size = step_size
        if min(output_size, top_channels, channels, blocks, error_channels, readout_channels) < 1:
            raise UserError("Metz2019: every size and the number of blocks must be at least 1.")
        if not identical_updates and not self.scheme.learned:
            raise UserError(
                f"Metz2019: identical_updates=False is about learning V, which feedback={feedback!r} does not; "
                f"use feedback='learned' or identical updates."
            )
        self.build_parameters()

    def rule_config(self):
        """The constructor's arguments."""
        names = (
            "output_size",
            "top_channels",
            "top_unit_layers",
            "top_batch_layers",
            "channels",
            "blocks",
            "error_channels",
            "readout_channels",
            "identical_updates",
            "normalise_epsilon",
            "step_size",
        )
        return {**{name: getattr(self, name) for name in names}, **super().rule_config()}

    @property
    def directions(self):
        """Which sets of readouts and coefficients there are: `forward` for W, `backward` for V."""
        return ("forward",) if self.identical_updates else ("forward", "backward")

    def parameters(self):
        """Meta-parameters: about 110,000 numbers at the published sizes."""
        top, channels, units = self.top_channels, self.channels, self.output_size
        declared = {"top_delta/in/kernel": fan_in(5, 1, top), "top_delta/in/shift": Parameter((top,))}
        for i in range(self.top_unit_layers):
            declared[f"top_delta/units_{i}/kernel"] = fan_in(3, units, units)
            declared[f"top_delta/units_{i}/shift"] = Parameter((units,))
        for i in range(self.top_batch_layers):
            declared[f"top_delta/batch_{i}/kernel"] = fan_in(3, top, top)
            declared[f"top_delta/batch_{i}/shift"] = Parameter((top,))
        declared["top_delta/out/kernel"] = fan_in(3, top, self.error_channels)
        declared["top_delta/out/bias"] = Parameter((self.error_channels,))
        normed = NORMED_INPUTS + self.error_channels
        declared["unit_network/in/shift"] = Parameter((normed,))
        for i in range(self.blocks):
            seen = PLAIN_INPUTS + normed if i == 0 else channels
            declared[f"unit_network/block_{i}/batch/kernel"] = fan_in(3, seen, channels)
            declared[f"unit_network/block_{i}/batch/shift"] = Parameter((channels,))
            for k in range(UNIT_CONVOLUTIONS):
                declared[f"unit_network/block_{i}/units_{k}/kernel"] = fan_in(3, channels, channels)
                declared[f"unit_network/block_{i}/units_{k}/shift"] = Parameter((channels,))
        if self.scheme.carries:
            declared["next_delta/kernel"] = fan_in(channels, self.error_channels)
            declared["next_delta/bias"] = Parameter((self.error_channels,))
        for direction in self.directions:
            for name, side in dict.fromkeys(terms.BELOW + terms.ABOVE):
                path = f"readouts/{direction}/{name}/{side}"
                declared[f"{path}/kernel"] = fan_in(channels, self.readout_channels)
                declared[f"{path}/bias"] = Parameter((self.readout_channels,))
            declared[f"merge/{direction}/coefficients"] = Parameter((len(terms.TERMS),), value=0.1)
            declared[f"merge/{direction}/bias"] = Parameter(())
        declared["bias_readout/kernel"] = fan_in(channels, 1)
        declared["bias_readout/bias"] = Parameter((1,))
        return declared

    def network(self, layer_sizes, activation="relu"):
        """A base network as this rule wants it; see `UpdateRule.network`.

        Raises:
          UserError: the top layer is not of the size that this rule's meta-parameters are for.
        """
        if int(layer_sizes[-1]) != self.output_size:
            raise UserError(
                f"This metz2019 rule is for networks with {self.output_size} output units, not {layer_sizes[-1]}: two "
                f"convolutions of its top delta take the output units as channels, so its meta-parameters depend on that "
                f"size. Use {self.output_size} output units, or train a rule with output_size={layer_sizes[-1]}."
            )
        return super().network(layer_sizes, activation)

    def initial_kernel(self, keys, rows, columns):
        """W and V `[tasks, rows, columns]`: truncated normal, deviation 0.01 before the cut (section 1)."""
        drawn = _truncated_normal(keys, rows * columns, self.dtype)
        return 0.01 * tf.reshape(drawn, [tf.shape(keys)[0], rows, columns])

    def initial_state(self, layer_sizes, keys):
        """A fresh network for every key; the biases too are random, truncated normal of deviation 0.1 (section 1)."""
        state = super().initial_state(layer_sizes, keys)
        biases = []
        for layer, columns in enumerate(layer_sizes[1:]):
            drawn = _truncated_normal(stateless.fold(keys, "bias", layer), columns, self.dtype)
            biases.append(0.1 * drawn)
        return state._replace(biases=tuple(biases))

    def update(self, theta, network, state, inputs, keys):
        """One application; see `UpdateRule.update`. It is deterministic: the keys are ignored."""
        activities = network.activities(state, inputs)
        sweep = self.sweep_down(theta, state, activities)
        readouts = [self.readouts(theta, hidden) for hidden in sweep.hidden]
        kernels, biases, feedback = [], [], []
        for layer, (kernel, bias) in enumerate(zip(state.kernels, state.biases, strict=True), start=1):
            changes = self.changes(theta, state, activities, readouts, layer)
            kernels.append(self.step(kernel, changes["forward"].change))
            if self.scheme.learned:
                feedback.append(self.step(state.feedback[layer - 1], changes[self.directions[-1]].change))
            biases.append(self.step(bias, self.bias_change(theta, sweep.hidden[layer])))
        carried = tuple(feedback) if self.scheme.learned else state.feedback
        return NetworkState(tuple(kernels), tuple(biases), carried, state.memory)

    def sweep_down(self, theta, state, activities):
        """Errors and hidden activities of every unit layer, from the top down, as a `Sweep` (section 3)."""
        top = len(activities.pre) - 1
        errors, hidden, deltas = ([None] * (top + 1) for _ in range(3))
        errors[top] = self.top_delta(theta, activities.post[top])
        for layer in range(top, -1, -1):
            hidden[layer] = self.unit_network(theta, state, activities, layer, errors[layer])
            if layer:
                deltas[layer] = self.next_delta(theta, activities.pre[layer], errors[layer], hidden[layer])
                errors[layer - 1] = self.send_down(state, layer, deltas[layer], deltas[top])
        return Sweep(tuple(errors), tuple(hidden), tuple(deltas))

    def top_delta(self, theta, top):
        """The error at the top from its activity `[tasks, batch, units]`: `[tasks, channels, batch, units]` (section 2)."""
        values = parts.convolve(top[:, None], theta["top_delta/in/kernel"], axis=2)
        values = tf.nn.relu(parts.channel_norm(values, theta["top_delta/in/shift"]))
        for i in range(self.top_unit_layers):
            values = parts.convolve_units_as_channels(values, theta[f"top_delta/units_{i}/kernel"])
            shift = theta[f"top_delta/units_{i}/shift"][:, None, None, :]
            values = tf.nn.relu(parts.batch_norm(values, shift, [1, 2]))
        for i in range(self.top_batch_layers):
            values = parts.convolve(values, theta[f"top_delta/batch_{i}/kernel"], axis=2)
            values = tf.nn.relu(parts.channel_norm(values, theta[f"top_delta/batch_{i}/shift"]))
        values = parts.convolve(values, theta["top_delta/out/kernel"], axis=2)
        return values + theta["top_delta/out/bias"][:, :, None, None]

    def unit_network(self, theta, state, activities, layer, errors):
        """h of one unit layer, `[tasks, channels, batch, units]` (section 3a); `errors` is d of that layer."""
        products = self._first_products(theta, state, activities, layer, errors)
        values = parts.gather_taps(products, theta["unit_network/block_0/batch/kernel"].shape[1], axis=2)
        for i in range(self.blocks):
            path = f"unit_network/block_{i}"
            if i:
                values = parts.convolve(values, theta[f"{path}/batch/kernel"], axis=2)
            values = tf.nn.relu(parts.channel_norm(values, theta[f"{path}/batch/shift"]))
            inner = values
            for k in range(UNIT_CONVOLUTIONS):
                inner = parts.convolve(inner, theta[f"{path}/units_{k}/kernel"], axis=3)
                inner = tf.nn.relu(parts.channel_norm(inner, theta[f"{path}/units_{k}/shift"]))
            values += inner
        return values

    def _first_products(self, theta, state, activities, layer, errors):
        """All taps of the unit network's first convolution, before they are moved into place.

        Eleven of its 45 inputs are the same for every example, so their share is computed once a unit.
        """
        dtype, depth = errors.dtype, len(state.kernels)
        below = state.kernels[layer - 1] if layer else None
        above = state.kernels[layer] if layer < depth else None
        statistics = parts.weight_statistics(below, above)
        bias = state.biases[layer - 1][:, None] if layer else tf.zeros_like(statistics[:, :1])
        shift = theta["unit_network/in/shift"]
        seen = tf.concat([activities.post[layer][:, None], activities.pre[layer][:, None], errors], axis=1)
        seen = parts.channel_norm(seen, tf.concat([shift[:, :2], shift[:, 4:]], axis=1))
        identity = parts.unit_identity(parts.size(errors, 3), dtype) + shift[:, 2:4, None]
        weights = parts.taps(theta["unit_network/block_0/batch/kernel"])
        # Columns of the weights: statistics and bias, x and z, sine and cosine, errors.
        plain, direct, turning, carried = tf.split(weights, [PLAIN_INPUTS, 2, 2, self.error_channels], axis=2)
        constant = tf.matmul(
            tf.concat([plain, turning], axis=2), tf.concat([statistics, bias, identity], axis=1)
        )
        return parts.mix(tf.concat([direct, carried], axis=2), seen) + constant[:, :, None, :]

    def next_delta(self, theta, pre, errors, hidden):
        """delta of one layer from z `[tasks, batch, units]`, d and h: what is sent down (section 3b)."""
        if not self.scheme.carries:
            return errors
        read = (
            parts.mix(tf.linalg.matrix_transpose(theta["next_delta/kernel"]), hidden)
            + theta["next_delta/bias"][:, :, None, None]
        )
        return errors * tf.sigmoid(pre)[:, None] + read

    def send_down(self, state, layer, deltas, top_deltas):
        """d of layer `layer - 1` from delta of `layer`: through V, each example and unit to unit rms (section 3b)."""
        sent = self.scheme.down(state, layer, deltas, top_deltas)
        return sent * tf.math.rsqrt(tf.reduce_mean(tf.square(sent), axis=1, keepdims=True) + 1e-6)

    def readouts(self, theta, hidden):
        """All low-rank readouts of a layer's h: a dict of direction -> dict of `(term, side)` -> `[tasks, 4, batch, units]`."""
        names = [
            (direction, key)
            for direction in self.directions
            for key in dict.fromkeys(terms.BELOW + terms.ABOVE)
        ]
        paths = [f"readouts/{direction}/{name}/{side}" for direction, (name, side) in names]
        kernel = tf.concat([theta[f"{path}/kernel"] for path in paths], axis=2)
        bias = tf.concat([theta[f"{path}/bias"] for path in paths], axis=1)
        read = tf.split(
            parts.mix(tf.linalg.matrix_transpose(kernel), hidden) + bias[:, :, None, None], len(paths), axis=1
        )
        found = {direction: {} for direction in self.directions}
        for (direction, key), values in zip(names, read, strict=True):
            found[direction][key] = values
        return found

    def changes(self, theta, state, activities, readouts, layer):
        """The change of one weight layer, 1..L: a dict of direction -> `Change` (sections 4 to 6).

        Args:
          readouts: of every unit layer, as `readouts` gives them.
        """
        found = {}
        for direction in self.directions:
            matrix = (state.kernels if direction == "forward" else state.feedback)[layer - 1]
            twelve = terms.change_terms(
                matrix,
                activities.post[layer],
                activities.post[layer - 1],
                readouts[layer][direction],
                readouts[layer - 1][direction],
            )
            found[direction] = Change(*self.merge(theta, direction, twelve), twelve)
        return found

    def merge(self, theta, direction, twelve):
        """`(core, change)` of one matrix from its terms (section 5)."""
        coefficients, bias = theta[f"merge/{direction}/coefficients"], theta[f"merge/{direction}/bias"]
        return terms.merge(twelve, coefficients, bias, self.normalise_epsilon)

    def bias_change(self, theta, hidden):
        """The change of a layer's bias, `[tasks, units]`, from its h (section 7)."""
        activity = tf.reduce_mean(hidden, axis=2)
        drive = tf.matmul(theta["bias_readout/kernel"], activity, transpose_a=True)[:, 0]
        drive += theta["bias_readout/bias"]
        drive += tf.nn.relu(-tf.reduce_mean(drive, axis=1, keepdims=True))
        return drive * tf.math.rsqrt(tf.reduce_mean(tf.square(drive), axis=1, keepdims=True) + 0.5)

    def step(self, old, change):
        """What becomes of weights or biases under their change: decay and step of one size (section 8)."""
        # Formed in double and rounded once, as published.
        keep, step = (
            tf.constant(np.asarray(value, old.dtype.as_numpy_dtype))
            for value in (1.0 - self.step_size, self.step_size)
        )
        return old * keep - change * step


def _truncated_normal(keys, count, dtype):
    """`count` numbers a key from the standard normal within two deviations: `[tasks, 2]` -> `[tasks, count]`."""
    inside = tf.math.erf(tf.constant(2.0**0.5, dtype))
    drawn = stateless.uniform(keys, count, dtype)
    return tf.math.erfinv((2.0 * drawn - 1.0) * inside) * tf.constant(2.0**0.5, dtype)
