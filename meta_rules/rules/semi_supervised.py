"""The semi-supervised rule: a few labels reach the top units, most examples have none; all a weight needs is at its ends.

Every unit integrates three streams, for every example of the batch: bottom-up its current z_j, top-down an error of a few
channels (at the top the target, where there is one), and recurrent the layer's activity through lateral weights L. A
small network shared by all units turns them into one number a_j, what the unit should have done; a weight moves
towards the mean of that over the examples in which its sender was active:

    W_ij <- W_ij + s ( mean_batch(x_i a_j) - d mean_batch(|x_i|) W_ij ) / mean_batch(|x_i|)

a product of the sender's output and a function of what the receiver sees. Where the target is missing, the unit's own
output takes its place in a_j (self-training); with senders that have small receptive fields the labels then spread
through the data, application after application, as by a random walk between examples and units.

Source: the form is that of Gu, Greydanus, Metz, Maheswaranathan and Sohl-Dickstein, "Meta-Learning Biologically Plausible
Semi-Supervised Update Rules", bioRxiv 2019. The decay gated by the sender is Grossberg's outstar (Studies in
Applied Mathematics 52, 1973); the walk is that of label propagation over anchors (Liu, He and Chang, ICML 2010).
"""

import math

import tensorflow as tf

from meta_rules.configuration import configurable
from meta_rules.networks import NetworkState
from meta_rules.rules.base import Parameter, Side, UpdateRule, fan_in, register
from meta_rules.rules.channels import mix
from meta_rules.rules.local import mean_product

#: What a top unit's error is made of: current, recurrent input, whether there is a target, the target, and the miss.
TOP_INPUTS = 5
#: What the unit network sees besides the error channels: current, output, recurrent input.
LOCAL_INPUTS = 3
#: What a_j is made of besides the unit network's readout: target, own output where there is none, recurrent input, and how
#: far the current misses the target.
TERMS = 4


@register("semi_supervised")
@configurable
class SemiSupervisedRule(UpdateRule):
    """A neuron-local rule for data with few labels; see the module's text.

    Local, precisely: the change of W_ij (and of V_ij, and of the lateral L_jk) is a function of W_ij itself, of the
    outputs of its two units, and of what unit j receives: its current, its error channels, its recurrent
    input, and its target if it is a top unit. What goes beyond the single example are batch statistics of one
    unit or one pair: means of a unit's own activity (the base network's normalisation is of that kind too) and
    of products of its two ends' activities. No sum over other weights, no comparison within the layer, no
    normalisation of columns. Two schemes of feedback share weights beyond the pair, as they do in every rule:
    `symmetric` sends the error down through W itself, `direct` from the top past the layers between.

    Args:
      hidden: channels of the unit network.
      error_channels: channels of the error.
      feedback, seed: see `UpdateRule`.
    """

    needs_labels = True
    # Outputs of senders are read as rates: they should not be negative.
    standardise_inputs = False
    #: Far above the square of the initial currents at the top, so that these are small until labels have been seen.
    network_epsilon = 1e-4
    TOP_SCALE = 1e-5

    def __init__(
        self, hidden: int = 16, error_channels: int = 4, feedback: str = "learned", seed: int = 0, **kwargs
    ):
        super().__init__(feedback=feedback, seed=seed, **kwargs)
        self.hidden, self.error_channels = hidden, error_channels
        self.array_channels = hidden
        self.build_parameters()

    def rule_config(self):
        """The constructor's arguments."""
        return {"hidden": self.hidden, "error_channels": self.error_channels, **super().rule_config()}

    def parameters(self):
        """Meta-parameters: about 700 numbers at the default sizes."""
        hidden, errors = self.hidden, self.error_channels
        return {
            "top_error/in": fan_in(TOP_INPUTS, hidden),
            "top_error/bias": Parameter((hidden,)),
            "top_error/out": fan_in(hidden, errors),
            "unit_network/in": fan_in(LOCAL_INPUTS + errors, hidden),
            "unit_network/in_bias": Parameter((hidden,)),
            "unit_network/out": fan_in(hidden, hidden),
            "unit_network/out_bias": Parameter((hidden,)),
            "readout/error": fan_in(hidden, errors),
            "readout/goal": Parameter((errors, 1)),
            "readout/bias": Parameter((hidden, 1), scale=0.1 * hidden**-0.5),
            # Of every layer, and what the top adds to them: a network may have no other layer.
            "terms": Parameter((TERMS,), value=[0.0, 1.0, 0.0, 0.0]),
            "terms_top": Parameter((TERMS,), value=[2.0, 0.0, 0.0, 0.0]),
            # The logarithm of how soon a unit's own output saturates.
            "slope": Parameter((), value=math.log(0.4)),
            # Sigmoids of these are step sizes, shares of the way; the top adds its own to `step`.
            "step": Parameter((), value=-4.0),
            "step_top": Parameter((), value=3.0),
            # The logarithm of how fast weights decay: at 0 to the mean goal, far below they add up what they are told.
            "decay": Parameter(()),
            "step_lateral": Parameter((), value=-2.0),
            "bias_step": Parameter((), value=-4.0),
        }

    def initial_state(self, layer_sizes, keys):
        """As in `UpdateRule`, but the top units start with hardly any weights: they wait for labels."""
        state = super().initial_state(layer_sizes, keys)
        kernels = (*state.kernels[:-1], self.TOP_SCALE * state.kernels[-1])
        return state._replace(kernels=kernels)

    def initial_memory(self, layer_sizes, keys):
        """Lateral weights, one `[tasks, units, units]` a layer above the input; none at first."""
        tasks = tf.shape(keys)[0]
        return tuple(tf.zeros([tasks, units, units], self.dtype) for units in layer_sizes[1:])

    def update(self, theta, network, state, inputs, keys, side=None):
        """One application; see `UpdateRule.update`."""
        activities = network.activities(state, inputs)
        top = len(state.kernels)
        if side is None:
            nothing = tf.zeros_like(activities.pre[top])
            side = Side(nothing, nothing[..., 0])
        slope = tf.exp(theta["slope"])[:, None, None]
        outputs = [None, *(tf.tanh(slope * z) / slope for z in activities.pre[1:])]
        recurrent = [None, *map(_through, outputs[1:], state.memory)]
        target, missing = _target(side, activities.pre[top])
        messages, hidden = self._sweep_down(theta, state, activities, recurrent, target, 1.0 - missing)
        miss = _bounded(target - (1.0 - missing) * activities.pre[top])
        decay = tf.exp(theta["decay"])[:, None, None]
        kernels, biases, feedback, laterals = [], [], [], []
        for layer in range(1, top + 1):
            at_top = layer == top
            parts = (
                target if at_top else tf.zeros_like(outputs[layer]),
                outputs[layer] * missing if at_top else outputs[layer],
                recurrent[layer],
                miss if at_top else tf.zeros_like(outputs[layer]),
            )
            terms = theta["terms"] + theta["terms_top"] if at_top else theta["terms"]
            goal = sum(terms[:, i, None, None] * part for i, part in enumerate(parts))
            goal += mix(theta["readout/goal"], messages[layer])[:, 0]
            step = tf.sigmoid(theta["step"] + theta["step_top"] if at_top else theta["step"])[:, None, None]
            sender = activities.post[layer - 1]
            kernels.append(_towards(state.kernels[layer - 1], sender, goal, step, decay))
            if self.scheme.learned:
                feedback.append(_towards(state.feedback[layer - 1], sender, goal, step, decay))
            biases.append(self._bias(theta, state.biases[layer - 1], hidden[layer]))
            laterals.append(_lateral(theta, state.memory[layer - 1], outputs[layer]))
        carried = tuple(feedback) if self.scheme.learned else state.feedback
        return NetworkState(tuple(kernels), tuple(biases), carried, tuple(laterals))

    def _sweep_down(self, theta, state, activities, recurrent, target, known):
        """What the units of layers 1 and up send down, and their hidden activity, each `[tasks, channels, batch, units]`."""
        top = len(state.kernels)
        current = activities.pre[top]
        seen = [current, recurrent[top], known * tf.ones_like(target), target, target - known * current]
        seen = _bounded(tf.stack(seen, axis=1))
        first = tf.nn.relu(mix(theta["top_error/in"], seen) + theta["top_error/bias"][:, :, None, None])
        error = top_error = tf.tanh(mix(theta["top_error/out"], first))
        messages, hidden = [None] * (top + 1), [None] * (top + 1)
        for layer in range(top, 0, -1):
            local = [activities.pre[layer], activities.post[layer], recurrent[layer]]
            seen = tf.concat([_bounded(tf.stack(local, axis=1)), error], axis=1)
            hidden[layer] = self._unit_network(theta, seen)
            gate = tf.sigmoid(activities.pre[layer])[:, None]
            messages[layer] = error * gate + mix(theta["readout/error"], hidden[layer])
            if layer > 1:
                sent = messages[layer] if self.scheme.carries else error
                error = self.scheme.down(state, layer, sent, top_error)
                size = tf.reduce_mean(tf.square(error), axis=1, keepdims=True)
                error = error * tf.math.rsqrt(size + 1e-2)
        return messages, hidden

    def _unit_network(self, theta, seen):
        first = tf.nn.relu(
            mix(theta["unit_network/in"], seen) + theta["unit_network/in_bias"][:, :, None, None]
        )
        second = mix(theta["unit_network/out"], first) + theta["unit_network/out_bias"][:, :, None, None]
        return tf.nn.relu(second)

    def _bias(self, theta, old, hidden):
        drive = tf.reduce_mean(tf.tanh(mix(theta["readout/bias"], hidden)[:, 0]), axis=1)
        return 0.99 * old + tf.sigmoid(theta["bias_step"])[:, None] * drive


def _target(side, like):
    """What the labels ask of the top units, and where they ask nothing.

    Returns:
      `(target, missing)`: `[tasks, batch, classes]`, of mean 0 and variance 1 for equally frequent classes, 0 where no
      label is known; and `[tasks, batch, 1]`, 1 there and 0 elsewhere.
    """
    known = tf.cast(side.mask, like.dtype)[..., None]
    share = 1.0 / like.shape[-1]
    target = (tf.cast(side.labels, like.dtype) - share) / (share * (1.0 - share)) ** 0.5
    return known * target, 1.0 - known


def _through(output, lateral):
    """Recurrent input of every unit: outputs `[tasks, batch, units]` through lateral weights `[tasks, units, units]`."""
    units = tf.cast(tf.shape(lateral)[-1], output.dtype)
    return tf.matmul(output, lateral) * tf.math.rsqrt(units)


def _bounded(values):
    """Keeps what a unit sees within about 3 deviations, smoothly."""
    return 3.0 * tf.tanh(values / 3.0)


def _towards(weights, sender, goal, step, decay):
    """Weights `[tasks, in, out]` moved towards the goal's mean over the examples in which the sender is active."""
    active = tf.linalg.matrix_transpose(tf.reduce_mean(tf.abs(sender), axis=1, keepdims=True))
    return weights + step * (mean_product(sender, goal) - decay * active * weights) / (active + 1e-2)


def _lateral(theta, old, output):
    """Lateral weights a step nearer to the mean product of the outputs; none of a unit to itself."""
    step = tf.sigmoid(theta["step_lateral"])[:, None, None]
    new = old + step * (mean_product(output, output) - old)
    return tf.linalg.set_diag(new, tf.zeros_like(new[..., 0]))
