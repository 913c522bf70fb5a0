"""The default rule: per-weight, Hebbian in its output, with a small network shared by every unit of every layer.

Each unit sees its input, its output and a synthetic error, for every example of the batch. A small network turns them into
K pairs of factors, `b` (the unit as a sender) and `a` (as a receiver); the learned plane of the change of W_ij is the mean
over the batch of `sum_k b_ik a_jk`. Fixed planes (Hebb, winner-take-all, decorrelation) are mixed in with learned
coefficients. There is no loss and no label: the error starts as a learned function of the top activity.

Arrays are `[tasks, channels, batch, units]`. So the small network is one matrix product `[out, in] x [in, batch * units]`
with a long contiguous axis, its normalisation reduces contiguous rows, and both the way down through V and the outer
products are matrix products over `channels * batch`, none of which needs a transpose.

Source: the rule follows the form of Metz et al. 2019 (section 3.2 and appendix), simplified; the exact published rule is
`metz2019`.
"""

import tensorflow as tf

from meta_rules.configuration import configurable
from meta_rules.networks import NetworkState
from meta_rules.rules.base import Parameter, UpdateRule, fan_in, register, unit_columns

PLANES = ("learned", "hebb", "winner", "decorrelation")
#: Local inputs of the unit network besides the error channels: output, input current, competition.
LOCAL_INPUTS = 3
TOP_INPUTS = 4


def channel_norm(values, epsilon=1e-3):
    """Each channel of `[tasks, channels, batch, units]` to mean 0 and variance 1 over batch and units."""
    mean = tf.reduce_mean(values, axis=[2, 3], keepdims=True)
    variance = tf.reduce_mean(tf.square(values - mean), axis=[2, 3], keepdims=True)
    return (values - mean) * tf.math.rsqrt(variance + epsilon)


def batch_norm(values, axis, epsilon=1e-3):
    """Each unit to mean 0 and variance 1 over the batch axis."""
    mean = tf.reduce_mean(values, axis=axis, keepdims=True)
    variance = tf.reduce_mean(tf.square(values - mean), axis=axis, keepdims=True)
    return (values - mean) * tf.math.rsqrt(variance + epsilon)


def mix(weights, values):
    """Channels mixed: `weights [tasks, in, out]`, `values [tasks, in, batch, units]` -> `[tasks, out, batch, units]`."""
    tasks, channels, batch, units = values.shape
    dynamic = tf.shape(values)
    flat = tf.reshape(values, [dynamic[0] if tasks is None else tasks, channels, -1])
    mixed = tf.matmul(weights, flat, transpose_a=True)
    shape = [size if size is not None else dynamic[i] for i, size in enumerate((tasks, weights.shape[2], batch, units))]
    return tf.reshape(mixed, shape)


def outer(senders, receivers):
    """Sum over channels and batch: `[tasks, channels, batch, in]`, `[.., out]` -> `[tasks, in, out]`."""

    def flat(values):
        dynamic = tf.shape(values)
        tasks = values.shape[0] if values.shape[0] is not None else dynamic[0]
        units = values.shape[3] if values.shape[3] is not None else dynamic[3]
        return tf.reshape(values, [tasks, -1, units])

    return tf.matmul(flat(senders), flat(receivers), transpose_a=True)


def bias(values):
    """A channel vector `[tasks, channels]` shaped to add to `[tasks, channels, batch, units]`."""
    return values[:, :, None, None]


@register("default")
@configurable
class DefaultRule(UpdateRule):
    """The default rule of the package; see the module's text.

    The unit network uses batch statistics and softmax competition within the layer, so a weight's change depends on more
    than its own two units: the rule is not neuron-local in the strict sense.

    Args:
      hidden: channels of the unit network.
      error_channels: channels of the synthetic error.
      factors: K, pairs of factors in the learned plane.
      feedback, seed: see `UpdateRule`.
    """

    neuron_local = False

    def __init__(
        self,
        hidden: int = 24,
        error_channels: int = 8,
        factors: int = 6,
        feedback: str = "learned",
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(feedback=feedback, seed=seed, **kwargs)
        self.hidden = hidden
        self.error_channels = error_channels
        self.factors = factors
        self.build_parameters()

    def rule_config(self):
        """The constructor's arguments."""
        return {
            "hidden": self.hidden,
            "error_channels": self.error_channels,
            "factors": self.factors,
            **super().rule_config(),
        }

    def parameters(self):
        """Meta-parameters: about 4,000 numbers at the default sizes."""
        hidden, errors, factors = self.hidden, self.error_channels, self.factors
        parameters = {
            "top_error/in": fan_in(TOP_INPUTS, hidden),
            "top_error/out": fan_in(hidden, errors),
            "unit_network/in": fan_in(LOCAL_INPUTS + errors, hidden),
            "unit_network/in_bias": Parameter((hidden,)),
            "unit_network/own": fan_in(hidden, hidden),
            "unit_network/minus_batch": fan_in(hidden, hidden),
            "unit_network/minus_layer": fan_in(hidden, hidden),
            "unit_network/out_bias": Parameter((hidden,)),
            "readout/error": fan_in(hidden, errors),
            "readout/receiver": fan_in(hidden, factors),
            "readout/sender": fan_in(hidden, factors),
            "readout/bias": fan_in(hidden, 1),
            "readout/step": Parameter((hidden, 1)),
            "planes": Parameter((len(PLANES),), value=0.5),
            "step": Parameter((), value=-3.0),
            "bias_step": Parameter((), value=-4.0),
        }
        if not self.scheme.carries:
            del parameters["readout/error"]
        return parameters

    def update(self, theta, network, state, inputs, keys):
        """One application; see `UpdateRule.update`."""
        activities = network.activities(state, inputs)
        hidden = self._sweep_down(theta, state, activities)
        kernels, biases, feedback = [], [], []
        for layer in range(1, len(activities.pre)):
            step = self._step_size(theta, hidden[layer])
            change = self._change(theta, state.kernels[layer - 1], activities, hidden, layer)
            kernels.append(unit_columns(state.kernels[layer - 1] + step * change))
            if self.scheme.learned:
                feedback.append(unit_columns(state.feedback[layer - 1] + step * change))
            biases.append(self._bias(theta, state.biases[layer - 1], hidden[layer]))
        carried = tuple(feedback) if self.scheme.learned else state.feedback
        return NetworkState(tuple(kernels), tuple(biases), carried, state.memory)

    def _sweep_down(self, theta, state, activities):
        """Hidden activity of every unit, layer 0 first, each `[tasks, hidden, batch, units]`."""
        top = len(activities.pre) - 1
        pre = [z[:, None] for z in activities.pre]
        post = [x[:, None] for x in activities.post]
        # How strongly a unit wins within its layer, for every example; 1 on average.
        competition = [tf.nn.softmax(2.0 * z, axis=-1) * tf.cast(tf.shape(z)[-1], z.dtype) for z in pre]
        seen = tf.concat([pre[top], competition[top], winners(pre[top]), post[top]], axis=1)
        errors = channel_norm(
            mix(theta["top_error/out"], tf.nn.relu(channel_norm(mix(theta["top_error/in"], seen))))
        )
        top_errors = errors
        hidden = [None] * (top + 1)
        for layer in range(top, -1, -1):
            seen = tf.concat([channel_norm(post[layer]), pre[layer], competition[layer] - 1.0, errors], axis=1)
            hidden[layer] = self._unit_network(theta, seen)
            if layer:
                if self.scheme.carries:
                    errors = errors * tf.sigmoid(pre[layer]) + mix(theta["readout/error"], hidden[layer])
                errors = self.scheme.down(state, layer, errors, top_errors)
                size = tf.reduce_mean(tf.square(errors), axis=1, keepdims=True)
                errors = errors * tf.math.rsqrt(size + 1e-6)
        return hidden

    def _unit_network(self, theta, seen):
        first = channel_norm(mix(theta["unit_network/in"], seen)) + bias(theta["unit_network/in_bias"])
        first = tf.nn.relu(first)
        # W [g, g - mean_batch g, g - mean_layer g] is one product with the sum of the three blocks, less two small ones.
        minus_batch, minus_layer = theta["unit_network/minus_batch"], theta["unit_network/minus_layer"]
        second = mix(theta["unit_network/own"] + minus_batch + minus_layer, first)
        second -= mix(minus_batch, tf.reduce_mean(first, axis=2, keepdims=True))
        second -= mix(minus_layer, tf.reduce_mean(first, axis=3, keepdims=True))
        return tf.nn.relu(channel_norm(second) + bias(theta["unit_network/out_bias"]))

    def _step_size(self, theta, hidden):
        """`[tasks, 1, 1]`: bounded above (unbounded steps end in chaos), and lowered at will by the layer's activity."""
        activity = tf.reduce_mean(hidden, axis=[2, 3])
        lowered = tf.minimum(tf.einsum("tc,tcd->td", activity, theta["readout/step"]), 0.0)
        return tf.exp(tf.minimum(theta["step"], -1.0)[:, None] + lowered)[:, :, None]

    def _change(self, theta, kernel, activities, hidden, layer):
        """The change of one kernel before the step size, `[tasks, in, out]`: perpendicular to W, unit columns."""
        below, above, current = activities.pre[layer - 1], activities.post[layer], activities.pre[layer]
        examples = tf.cast(tf.shape(below)[1], kernel.dtype)
        senders = batch_norm(mix(theta["readout/sender"], hidden[layer - 1]), axis=2)
        receivers = batch_norm(mix(theta["readout/receiver"], hidden[layer]), axis=2)
        sender, receiver = batch_norm(below, axis=1), batch_norm(above, axis=1)
        winner = receiver * winners(current)
        rows = tf.cast(tf.shape(kernel)[2], kernel.dtype)
        correlation = tf.matmul(receiver, receiver, transpose_a=True) / examples
        planes = {
            "learned": outer(senders, receivers) / (examples * self.factors**0.5),
            "hebb": tf.matmul(sender, receiver, transpose_a=True) / examples,
            "winner": tf.matmul(sender, winner, transpose_a=True) / examples,
            "decorrelation": -tf.matmul(kernel, correlation) * tf.math.rsqrt(rows),
        }
        coefficients = theta["planes"]
        change = sum(
            coefficients[:, i, None, None] * unit_columns(planes[name], 1e-6) for i, name in enumerate(PLANES)
        )
        change -= kernel * tf.reduce_mean(change * kernel, axis=1, keepdims=True)
        return change * tf.math.rsqrt(0.01 + tf.reduce_mean(tf.square(change), axis=1, keepdims=True))

    def _bias(self, theta, old, hidden):
        activity = tf.reduce_mean(hidden, axis=2)
        drive = tf.tanh(tf.einsum("tcu,tcd->tu", activity, theta["readout/bias"]))
        return 0.99 * old + tf.exp(tf.minimum(theta["bias_step"], -1.0))[:, None] * drive


def winners(current):
    """1 where a unit is the largest of its layer for that example, 0 elsewhere; the last axis is units."""
    top = tf.reduce_max(current, axis=-1, keepdims=True)
    return tf.cast(current >= top, current.dtype)
