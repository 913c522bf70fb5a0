"""The default rule: per-weight, Hebbian in its output, with a small network shared by all units.

Each unit sees its input, its output and a synthetic error, for every example of the batch. A small network
turns them into K pairs of factors, `b` (the unit as a sender) and `a` (as a receiver); the learned plane of
the change of W_ij is the mean over the batch of `sum_k b_ik a_jk`. Fixed planes (Hebb, winner-take-all,
decorrelation) are mixed in with learned coefficients. There is no loss and no label: the error starts as a
learned function of the top activity. With `corruption`, every unit also hears what it says to a second, damaged
view of each example, and the plane `consistency` draws the two together (see `consistency.py` and `contrast.py`).

Arrays are `[tasks, channels, batch, units]`. So the small network is one matrix product `[out, in] x [in,
batch * units]` with a long contiguous axis, its normalisation reduces contiguous rows, and both the way down
through V and the outer products are matrix products over `channels * batch`, none of which needs a transpose.

Source: the rule follows the form of Metz et al. 2019 (section 3.2 and appendix), simplified; the exact
published rule is `metz2019`.
"""

import math
from typing import NamedTuple

import tensorflow as tf

from meta_rules.configuration import configurable
from meta_rules.errors import UserError
from meta_rules.networks import ACTIVATIONS, NetworkState
from meta_rules.rules import consistency, kinds, views
from meta_rules.rules.base import Parameter, UpdateRule, fan_in, register, unit_columns
from meta_rules.rules.channels import batch_norm, channel_means, channel_norm, mix, outer, row_means
from meta_rules.rules.local import competition, fall, mean_product, mean_square, winners
from meta_rules.rules.relations import Kept, relations

PLANES = ("learned", "hebb", "winner", "decorrelation")
#: Planes along W itself: they set its length, so they mean something only where nothing else does.
LENGTH_PLANES = ("oja", "decay")
#: The plane that compares two views of the batch; it needs `corruption`.
VIEW_PLANES = ("consistency",)
#: Local inputs of the unit network besides the error channels: output, input current, competition.
LOCAL_INPUTS = 3
TOP_INPUTS = 4
#: What a second view adds to either: current and competition of that view, and both views' errors.
VIEW_INPUTS = 4
#: What depends on the kinds of examples that a batch seems to hold, of a rule that may tell.
OF_KINDS = (
    "top_error/out",
    "unit_network/in_bias",
    "unit_network/out_bias",
    "readout/error",
    "readout/receiver",
    "readout/sender",
    "readout/bias",
    "bias_step",
    "planes",
    "consistency/contrast",
    "consistency/temperature",
)
#: Where the size of the biases' step starts, in logarithms, and what the two signals of kinds add to it: far from 0 biases make
#: hidden units sparse, which is good for few kinds and bad for many. Without a signal the first number.
BIAS_STEP, BIAS_STEP_OF_KINDS = -4.0, (-8.5, [5.0, -3.0])
#: Where a step that falls begins: with it the plane `consistency` learns well by itself.
FALLING_STEP = 0.1


class DefaultMemory(NamedTuple):
    """What networks remember whose step falls or whose objective depends on what they saw.

    Attributes:
      clock: rule applications so far, `[tasks]`.
      seen: mean of the signals of kinds, `[tasks, 2]`, see `kinds.remembered`; nothing without relations.
    """

    clock: tf.Tensor
    seen: tf.Tensor | tuple = ()


@register("default")
@configurable
class DefaultRule(UpdateRule):
    """The default rule of the package; see the module's text.

    The unit network uses batch statistics and softmax competition within the layer, so a weight's change
    depends on more than its own two units: the rule is not neuron-local in the strict sense.

    Args:
      hidden: channels of the unit network.
      error_channels: channels of the synthetic error.
      factors: K, pairs of factors in the learned plane.
      planes: names of the planes to mix, of `PLANES`, `VIEW_PLANES` and `LENGTH_PLANES`; the parameter `planes`
        holds their coefficients.
      corruption, patches, deformation: how a second view of the batch differs from the first, see `views.Damage`; no
        corruption, no second view.
      directions, neighbours: shares, in [0, 1), of the units that tell an example from the others, and of the nearest
        example as another view of it; see `consistency.own_errors` and `contrast.sought_examples`.
      linear_top, length_kept: whether features are the top layer's z itself, without the activation, and how much of their
        length they keep, in [0, 1]; see `BaseNetwork`.
      falling: whether the step falls with the age of a network, as (1 + age / held)^-anneal. A step of one size never comes
        to rest.
      held, anneal: rule applications for which a step that falls nearly keeps its size, and the exponent that the
        meta-parameter `anneal` starts at. With both large, networks learn as soon and come to rest earlier. The defaults stay:
        rules saved before there was a choice, as `default-2`, mean 100.
      kinds: whether the unit network, the biases, the planes' coefficients and the contrast depend on how many kinds of
        examples a batch seems to hold, see `kinds.py`; which parameters do is `OF_KINDS`.
      normalise: scale planes, changes and columns of W to unit rms. False leaves all three as they are, and
        the fixed planes then read what a plain network has: the layer's input x, and `y = activation(x W)`
        without batch normalisation. With the learned coefficients set by hand that is Hebb's rule (hebb 1),
        Oja's (hebb 1, oja 1) or his subspace rule (hebb 1, decorrelation 1), for the step size `exp(step)`.
      relations: whether that also decides, by a gate, which objective a network has: classes and contrast with the learned
        plane and the biases, or to keep the relations between examples (see `relations.py`) and none of these. Networks then
        remember what their batches told of kinds.
      feedback, seed: see `UpdateRule`.

    Raises:
      UserError: planes that are unknown, none, repeated, along W while its columns are normalised, or that compare
        two views where there is one; damage or a share that there cannot be, directions without a second view, or
        neighbours without directions; relations without kinds, directions and the plane consistency; a step held for no
        time, or an exponent by which it would not fall.
    """

    neuron_local = False

    def __init__(
        self,
        hidden: int = 24,
        error_channels: int = 8,
        factors: int = 6,
        planes: tuple = PLANES,
        normalise: bool = True,
        corruption: float = 0.0,
        patches: float = 0.0,
        deformation: float = 0.0,
        directions: float = 0.0,
        neighbours: float = 0.0,
        linear_top: bool = False,
        length_kept: float = 1.0,
        falling: bool = False,
        held: float = 100.0,
        anneal: float = 0.57,
        kinds: bool = False,
        relations: bool = False,
        feedback: str = "learned",
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(feedback=feedback, seed=seed, **kwargs)
        self.hidden = self.array_channels = hidden
        self.error_channels = error_channels
        self.factors = factors
        self.planes = tuple(planes)
        self.normalise = normalise
        self.damage = views.Damage(corruption, patches, deformation).checked()
        consistency.checked_shares(self.damage, directions, neighbours)
        self.directions, self.neighbours = directions, neighbours
        self.linear_top, self.length_kept = linear_top, length_kept
        self.falling, self.kinds, self.relations = falling, kinds, relations
        if relations and not (kinds and directions and "consistency" in self.planes):
            raise UserError(
                "DefaultRule: relations are kept by directions where kinds are many; give kinds = True, directions, for "
                "example 0.5, and the plane consistency."
            )
        self.held, self.anneal = held, anneal
        if not (held > 0.0 and anneal > 0.0):
            raise UserError(f"DefaultRule: held and anneal must be positive, got {held!r} and {anneal!r}.")
        # What is damaged is drawn input by input, so with other inputs at the same place it is the same in distribution only.
        self.permutation_equivariant = not self.damage
        if set(self.planes) & set(VIEW_PLANES) and not self.damage:
            raise UserError(
                "DefaultRule: the plane consistency compares two views; give corruption, for example 0.3."
            )
        known = PLANES + VIEW_PLANES if normalise else PLANES + VIEW_PLANES + LENGTH_PLANES
        if not self.planes or len(set(self.planes)) < len(self.planes) or not set(self.planes) <= set(known):
            raise UserError(
                f"DefaultRule.planes must be some of {', '.join(known)} (and {', '.join(LENGTH_PLANES)} only "
                f"with normalise = False), got {planes!r}."
            )
        self.build_parameters()

    def rule_config(self):
        """The constructor's arguments."""
        return {
            "hidden": self.hidden,
            "error_channels": self.error_channels,
            "factors": self.factors,
            "planes": list(self.planes),
            "normalise": self.normalise,
            **self.damage._asdict(),
            "directions": self.directions,
            "neighbours": self.neighbours,
            "linear_top": self.linear_top,
            "length_kept": self.length_kept,
            "falling": self.falling,
            "held": self.held,
            "anneal": self.anneal,
            "kinds": self.kinds,
            "relations": self.relations,
            **super().rule_config(),
        }

    def parameters(self):
        """Meta-parameters: about 4,000 numbers at the default sizes."""
        hidden, errors, factors = self.hidden, self.error_channels, self.factors
        heard = VIEW_INPUTS if self.damage else 0
        parameters = {
            "top_error/in": fan_in(TOP_INPUTS + heard, hidden),
            "top_error/out": fan_in(hidden, errors),
            "unit_network/in": fan_in(LOCAL_INPUTS + heard + errors, hidden),
            "unit_network/in_bias": Parameter((hidden,)),
            "unit_network/own": fan_in(hidden, hidden),
            "unit_network/minus_batch": fan_in(hidden, hidden),
            "unit_network/minus_layer": fan_in(hidden, hidden),
            "unit_network/out_bias": Parameter((hidden,)),
            "readout/error": fan_in(hidden, errors),
            "readout/receiver": fan_in(hidden, factors),
            "readout/sender": fan_in(hidden, factors),
            # What is random would only disturb a plane that learns well by itself.
            "readout/bias": Parameter((hidden, 1)) if "consistency" in self.planes else fan_in(hidden, 1),
            "readout/step": Parameter((hidden, 1)),
            "planes": Parameter((len(self.planes),), value=self._first_coefficients()),
            "step": Parameter((), value=math.log(FALLING_STEP) if self.falling else -3.0),
            "bias_step": Parameter((), value=BIAS_STEP_OF_KINDS[0] if self.kinds else BIAS_STEP),
        }
        if not self.scheme.carries:
            del parameters["readout/error"]
        if "learned" not in self.planes:
            del parameters["readout/sender"], parameters["readout/receiver"]
        if self.damage:
            parameters |= consistency.parameters(self.directions)
        if self.falling:
            parameters["anneal"] = Parameter((), value=math.log(math.expm1(self.anneal)))
        if self.kinds:
            moved = {name: parameters[name] for name in OF_KINDS if name in parameters}
            parameters |= kinds.parameters(moved, {"bias_step": BIAS_STEP_OF_KINDS[1]})
        if self.relations:
            parameters |= kinds.gate_parameters()
        return parameters

    def _first_coefficients(self):
        """Where the planes' coefficients start: alike, and most on the plane that learns well by itself if it is there."""
        if "consistency" not in self.planes:
            return 0.5
        return [1.0 if name == "consistency" else 0.1 for name in self.planes]

    def initial_memory(self, layer_sizes, keys):
        """`DefaultMemory` where the step falls or relations may be kept, nothing elsewhere."""
        if not (self.falling or self.relations):
            return ()
        tasks = tf.shape(keys)[0]
        seen = tf.zeros([tasks, kinds.SIGNALS], self.dtype) if self.relations else ()
        return DefaultMemory(tf.zeros([tasks], self.dtype), seen)

    def update(self, theta, network, state, inputs, keys):
        """One application; see `UpdateRule.update`."""
        activities = network.activities(state, inputs)
        memory = self._remembered(state.memory, activities.pre[0])
        kept = None
        if self.relations:
            share = kinds.gate(theta, memory.seen)
            theta = self._related(kinds.adapted(theta, memory.seen), share)
            kept = Kept(share, relations(inputs, tf.exp(theta["consistency/temperature"])))
        elif self.kinds:
            theta = kinds.adapted(theta, kinds.signals(activities.pre[0]))
        view = wishes = None
        if self.damage:
            view = network.activities(state, views.second_view(inputs, self.damage, keys))
            shares = self.directions, self.neighbours
            wishes = consistency.sweep_down(theta, self.scheme, state, activities, view, *shares, kept)
        hidden, readouts = self._sweep_down(theta, state, activities, view, wishes)
        scaled = unit_columns if self.normalise else tf.identity
        kernels, biases, feedback = [], [], []
        for layer in range(1, len(activities.pre)):
            kernel = state.kernels[layer - 1]
            planes = self._planes(kernel, activities, readouts, layer, network.activation)
            if "consistency" in self.planes:
                planes["consistency"] = consistency.consistency_plane(wishes[layer], activities, view, layer)
            size = self._step_size(theta, hidden[layer], state.memory)
            change = size * self._change(theta, kernel, planes)
            kernels.append(scaled(kernel + change))
            if self.scheme.learned:
                feedback.append(scaled(state.feedback[layer - 1] + change))
            biases.append(self._bias(theta, state.biases[layer - 1], hidden[layer]))
        carried = tuple(feedback) if self.scheme.learned else state.feedback
        return NetworkState(tuple(kernels), tuple(biases), carried, memory)

    def _remembered(self, memory, inputs):
        """The memory after this batch, of a network that has any."""
        if not memory:
            return memory
        seen = ()
        if self.relations:
            seen = kinds.remembered(memory.seen, kinds.signals(inputs), memory.clock)
        return DefaultMemory(memory.clock + 1.0, seen)

    def _related(self, theta, share):
        """Theta as far as relations are kept, `share [tasks]`: the plane `consistency` by itself, and biases that rest."""
        alone = tf.constant([float(name == "consistency") for name in self.planes], self.dtype)
        # Not to zero, whose logarithm would have no gradient.
        still = tf.math.log(1.0 - share + 1e-6)
        planes = (1.0 - share[:, None]) * theta["planes"] + share[:, None] * alone
        return theta | {"planes": planes, "bias_step": theta["bias_step"] + still}

    def _sweep_down(self, theta, state, activities, view, wishes):
        """Hidden activity of every unit and its readouts, two lists with layer 0 first.

        Hidden activities are `[tasks, hidden, batch, units]`, readouts a dict of name -> `[tasks, channels, batch, units]`.
        """
        top = len(activities.pre) - 1
        pre = [z[:, None] for z in activities.pre]
        post = [x[:, None] for x in activities.post]
        winning = [competition(z) for z in pre]
        seen = [pre[top], winning[top], winners(pre[top]), post[top]]
        if view is not None:
            seen += self._heard(view, wishes, top)
        seen = tf.concat(seen, axis=1)
        errors = channel_norm(
            mix(theta["top_error/out"], tf.nn.relu(channel_norm(mix(theta["top_error/in"], seen))))
        )
        top_errors = errors
        hidden, readouts = [None] * (top + 1), [None] * (top + 1)
        for layer in range(top, -1, -1):
            seen = [channel_norm(post[layer]), pre[layer], winning[layer] - 1.0, errors]
            if view is not None:
                seen += self._heard(view, wishes, layer)
            hidden[layer] = self._unit_network(theta, tf.concat(seen, axis=1))
            readouts[layer] = self._readouts(theta, hidden[layer], layer, top)
            if layer:
                if self.scheme.carries:
                    errors = errors * tf.sigmoid(pre[layer]) + readouts[layer]["error"]
                errors = self.scheme.down(state, layer, errors, top_errors)
                size = tf.reduce_mean(tf.square(errors), axis=1, keepdims=True)
                errors = errors * tf.math.rsqrt(size + 1e-6)
        return hidden, readouts

    def _heard(self, view, wishes, layer):
        """What a second view adds to a unit's inputs, a list of `[tasks, channels, batch, units]`."""
        second = view.pre[layer][:, None]
        return [second, competition(second) - 1.0, channel_norm(wishes[layer], epsilon=1e-9)]

    def _readouts(self, theta, hidden, layer, top):
        """What is read from one layer's hidden activity, in one product: a dict of name -> `[tasks, channels, ...]`."""
        names = ["error"] if layer and self.scheme.carries else []
        if "learned" in self.planes:
            names += ["receiver"] * (layer > 0) + ["sender"] * (layer < top)
        if not names:
            return {}
        weights = [theta[f"readout/{name}"] for name in names]
        read = mix(tf.concat(weights, axis=2), hidden)
        return dict(zip(names, tf.split(read, [each.shape[2] for each in weights], axis=1), strict=True))

    def _unit_network(self, theta, seen):
        first = channel_norm(mix(theta["unit_network/in"], seen), theta["unit_network/in_bias"])
        first = tf.nn.relu(first)
        # W [g, g - mean_batch g, g - mean_layer g] is one product with the blocks' sum, less two small ones.
        minus_batch, minus_layer = theta["unit_network/minus_batch"], theta["unit_network/minus_layer"]
        second = mix(theta["unit_network/own"] + minus_batch + minus_layer, first)
        second -= mix(minus_batch, tf.reduce_mean(first, axis=2, keepdims=True))
        second -= mix(minus_layer, row_means(first))
        return tf.nn.relu(channel_norm(second, theta["unit_network/out_bias"]))

    def _step_size(self, theta, hidden, memory):
        """`[tasks, 1, 1]`: bounded above (unbounded steps end in chaos), lowered by the layer's activity, and by age."""
        activity = channel_means(hidden)
        lowered = tf.minimum(tf.einsum("tc,tcd->td", activity, theta["readout/step"]), 0.0)
        if self.falling:
            lowered += fall(theta["anneal"], memory.clock, self.held)[:, None]
        return tf.exp(tf.minimum(theta["step"], -1.0)[:, None] + lowered)[:, :, None]

    def _planes(self, kernel, activities, readouts, layer, activation):
        """The planes of one kernel by name, each `[tasks, in, out]`."""
        units = tf.cast(tf.shape(kernel)[2], kernel.dtype)
        current = activities.pre[layer]
        if self.normalise:
            sender, receiver = (
                batch_norm(values, None, [1])
                for values in (activities.pre[layer - 1], activities.post[layer])
            )
            share = tf.math.rsqrt(units)
        else:
            sender = activities.post[layer - 1] if layer > 1 else activities.pre[0]
            current = tf.matmul(sender, kernel)
            receiver, share = ACTIVATIONS[activation](current), 1.0
        planes = {}
        if "learned" in self.planes:
            senders = batch_norm(readouts[layer - 1]["sender"], None, [2])
            receivers = batch_norm(readouts[layer]["receiver"], None, [2])
            examples = tf.cast(tf.shape(sender)[1], kernel.dtype)
            planes["learned"] = outer(senders, receivers) / (examples * self.factors**0.5)
        if "hebb" in self.planes:
            planes["hebb"] = mean_product(sender, receiver)
        if "winner" in self.planes:
            planes["winner"] = mean_product(sender, receiver * winners(current))
        if "decorrelation" in self.planes:
            planes["decorrelation"] = -tf.matmul(kernel, mean_product(receiver, receiver)) * share
        if "oja" in self.planes:
            planes["oja"] = -kernel * mean_square(receiver)
        if "decay" in self.planes:
            planes["decay"] = -kernel
        return planes

    def _change(self, theta, kernel, planes):
        """The change of one kernel before the step size: perpendicular to W, columns of at most unit rms."""
        scaled = (lambda plane: unit_columns(plane, 1e-6)) if self.normalise else tf.identity
        coefficients = theta["planes"]
        change = sum(
            coefficients[:, i, None, None] * scaled(planes[name]) for i, name in enumerate(self.planes)
        )
        if not self.normalise:
            return change
        change -= kernel * tf.reduce_mean(change * kernel, axis=1, keepdims=True)
        return change * tf.math.rsqrt(0.01 + tf.reduce_mean(tf.square(change), axis=1, keepdims=True))

    def _bias(self, theta, old, hidden):
        activity = tf.reduce_mean(hidden, axis=2)
        drive = tf.tanh(tf.einsum("tcu,tcd->tu", activity, theta["readout/bias"]))
        return 0.99 * old + tf.exp(tf.minimum(theta["bias_step"], -1.0))[:, None] * drive
