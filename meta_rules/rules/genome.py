"""The genome: a rule of a few dozen named coefficients, small enough for black-box search and for reading.

The change of a layer's weights is a mixture of *planes*, each a plasticity term from the literature, computed
from what the units at both ends of a weight do; the coefficients of the mixture are the meta-parameters.
Every one has a name, see `coefficients`.

Source of the idea, a parametric rule whose few coefficients are searched for: S. Bengio, Y. Bengio and J.
Cloutier, "On the search for new learning rules for ANNs", Neural Processing Letters 2, 1995; planes as cited
below.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from meta_rules.configuration import configurable
from meta_rules.networks import NetworkState
from meta_rules.rules import consistency, views
from meta_rules.rules.base import Parameter, UpdateRule, register, unit_columns
from meta_rules.rules.channels import channel_norm
from meta_rules.rules.local import batch_norm, competition, fall, mean_product, mean_square, winners

#: Name and initial coefficient of every plane. u is the sender's batch-normalised activity, v the receiver's.
PLANES = {
    "hebb": 0.5,  # u_i v_j
    "winner": 0.5,  # u_i v_j where j is the largest of its layer (Rumelhart and Zipser 1985)
    "soft_winner": 0.0,  # u_i times how strongly j wins within its layer
    "bcm": 0.0,  # u_i y_j (y_j - t_j), t_j a running mean of y_j^2 (Bienenstock, Cooper and Munro 1982)
    "error": 0.1,  # u_i e_j
    "gated_error": 0.0,  # u_i e_j sigmoid(z_j), as in backpropagation
    "sender_error": 0.0,  # e_i v_j
    "decorrelation": 0.5,  # - W U, U the correlations of the layer
    "sanger": 0.0,  # the same with the units before j only (Sanger 1989)
    "oja": 0.0,  # - y_j^2 W_ij, relative to the layer's mean (Oja 1982)
    "winner_decay": 0.0,  # - W_ij times how often j wins
    "decay": 0.0,  # - W_ij
}
#: The plane that compares two views of the batch; there is one where there is `corruption`.
VIEW_PLANES = {"consistency": 1.0}
#: Planes along W act on its length, so they keep their own; the others are scaled to unit columns.
LENGTH_PLANES = ("oja", "winner_decay", "decay")
#: What the top error is made of: the unit's current, how strongly it wins, whether it wins, its output.
TOP_ERROR = {"current": 0.0, "soft_winner": 0.0, "winner": 0.5, "output": 0.5}
#: What a unit adds to the error on its way down.
ERROR_DOWN = {"output": 0.1, "soft_winner": 0.0}
#: What moves a bias.
BIAS = {"constant": 0.0, "wins": 0.0, "power": 0.0, "error": 0.0}


class GenomeMemory(NamedTuple):
    """What the genome's networks remember.

    Attributes:
      thresholds: of the units, one `[tasks, 1, units]` a layer.
      clock: rule applications so far, `[tasks]`.
    """

    thresholds: tuple
    clock: tf.Tensor


@register("genome")
@configurable
class GenomeRule(UpdateRule):
    """A mixture of named planes with 40 meta-parameters, 45 with a second view, 47 with directions; see the module's text.

        d = sum of coefficient * plane, then columns of at most unit rms
        W <- W + s d, then each column c scaled by rms(c)^-homeostasis; V likewise
        s = exp(min(step, -1)) * (1 + age / 100)^-anneal
        b <- 0.99 b + exp(min(bias_step, -1)) * tanh(mixture of BIAS)
        e <- normalise(V (e sigmoid(z) + mixture of ERROR_DOWN)), at the top normalise(mixture of TOP_ERROR)

    In the top layer `planes_top` is added to `planes` and `step_top` to `step`. The error is one number a
    unit and example. Steps shrink with the age of the network: nothing else here could bring a fixed mixture
    to rest. Not neuron-local: competition, decorrelation and Sanger's plane look at the whole layer.

    Args:
      corruption, patches, deformation: how a second view of the batch differs from the first, see `views.Damage`; no
        corruption, no second view.
      directions: share of a layer's units that tell an example from the others, where the rest stand for classes, in [0, 1);
        see `consistency.py` and `contrast.py`.
      neighbours: how much the nearest example of the batch counts there as another view of an example, in [0, 1).
      linear_top, length_kept: whether features are the top layer's z itself, without the activation, and how much of their
        length they keep, in [0, 1]; see `BaseNetwork`.
      feedback, seed: see `UpdateRule`; nothing in the initial meta-parameters is random.

    Raises:
      UserError: damage or a share that there cannot be, directions without a second view, or neighbours without directions.
    """

    neuron_local = False

    def __init__(
        self,
        corruption: float = 0.0,
        patches: float = 0.0,
        deformation: float = 0.0,
        directions: float = 0.0,
        neighbours: float = 0.0,
        linear_top: bool = False,
        length_kept: float = 1.0,
        feedback: str = "learned",
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(feedback=feedback, seed=seed, **kwargs)
        self.damage = views.Damage(corruption, patches, deformation).checked()
        consistency.checked_shares(self.damage, directions, neighbours)
        self.directions, self.neighbours = directions, neighbours
        self.linear_top, self.length_kept = linear_top, length_kept
        # What is damaged is drawn input by input, so with other inputs at the same place it is the same in distribution only.
        self.permutation_equivariant = not self.damage
        # With a second view the plane that compares the two learns by itself, so the search starts from it alone.
        self.plane_names = dict.fromkeys(PLANES, 0.0) | VIEW_PLANES if self.damage else PLANES
        self.build_parameters()

    def rule_config(self):
        """The constructor's arguments."""
        own = {"directions": self.directions, "neighbours": self.neighbours}
        features = {"linear_top": self.linear_top, "length_kept": self.length_kept}
        return {**self.damage._asdict(), **own, **features, **super().rule_config()}

    def _tables(self):
        """Names and initial values of the coefficients in each parameter that is a vector of them."""
        tables = {
            "planes": self.plane_names,
            "planes_top": dict.fromkeys(self.plane_names, 0.0),
            "top_error": TOP_ERROR,
            "error_down": ERROR_DOWN,
            "bias": BIAS,
        }
        if not self.scheme.carries:
            del tables["error_down"]
        return tables

    def parameters(self):
        """One vector a table of coefficients, and scalars for step sizes and rates."""
        return {
            **{
                name: Parameter((len(table),), value=list(table.values()))
                for name, table in self._tables().items()
            },
            "step": Parameter((), value=-3.0),
            "step_top": Parameter((), value=0.0),
            # softplus and sigmoid of these: an exponent that cannot be negative, and shares.
            "anneal": Parameter((), value=-2.0),
            "homeostasis": Parameter((), value=3.0),
            "threshold_step": Parameter((), value=-2.0),
            "bias_step": Parameter((), value=-4.0),
            **self._of_views(),
        }

    def _of_views(self):
        return consistency.parameters(self.directions) if self.damage else {}

    def coefficients(self, theta=None):
        """Every meta-parameter by name, in order: what there is to print and plot of a genome.

        Args:
          theta: dict of name -> array; the rule's own if None.

        Returns:
          A dict of name -> float; coefficients are called `table/name`. Step sizes, exponents and shares are
          given as they act, not as they are searched for.
        """
        theta = self.theta() if theta is None else theta
        named = {}
        for table, names in self._tables().items():
            named |= {
                f"{table}/{name}": float(x) for name, x in zip(names, np.asarray(theta[table]), strict=True)
            }
        scalar = {
            name: np.float64(np.asarray(theta[name]))
            for name in self.parameters().keys() - self._tables().keys()
        }
        named["step"] = np.exp(min(scalar["step"], -1.0))
        named["step_top"] = np.exp(min(scalar["step"] + scalar["step_top"], -1.0))
        named["bias_step"] = np.exp(min(scalar["bias_step"], -1.0))
        for name in self._of_views():
            named[name] = np.exp(scalar[name])
        named["anneal"] = np.logaddexp(0.0, scalar["anneal"])
        for name in ("homeostasis", "threshold_step"):
            named[name] = 1.0 / (1.0 + np.exp(-scalar[name]))
        return {name: float(value) for name, value in named.items()}

    def initial_memory(self, layer_sizes, keys):
        """`GenomeMemory`: thresholds 1, clock 0."""
        tasks = tf.shape(keys)[0]
        thresholds = tuple(tf.ones([tasks, 1, units], self.dtype) for units in layer_sizes[1:])
        return GenomeMemory(thresholds, tf.zeros([tasks], self.dtype))

    def update(self, theta, network, state, inputs, keys):
        """One application; see `UpdateRule.update`."""
        activities = network.activities(state, inputs)
        top = len(state.kernels)
        errors = self._errors(theta, state, activities)
        if self.damage:
            view = network.activities(state, views.second_view(inputs, self.damage, keys))
            shares = self.directions, self.neighbours
            wishes = consistency.sweep_down(theta, self.scheme, state, activities, view, *shares)
        rate = tf.sigmoid(theta["threshold_step"])[:, None, None]
        thresholds = tuple(
            old + rate * (mean_square(y) - old)
            for old, y in zip(state.memory.thresholds, activities.post[1:], strict=True)
        )
        kernels, biases, feedback = [], [], []
        for layer in range(1, top + 1):
            kernel = state.kernels[layer - 1]
            coefficients = theta["planes"] + theta["planes_top"] if layer == top else theta["planes"]
            planes = self._planes(kernel, activities, errors, thresholds[layer - 1], layer)
            if self.damage:
                planes["consistency"] = consistency.consistency_plane(wishes[layer], activities, view, layer)
            step = self._step_size(theta, state.memory.clock, layer == top)
            change = step * _mixture(coefficients, self.plane_names, planes)
            kernels.append(self._held(theta, kernel + change))
            if self.scheme.learned:
                feedback.append(self._held(theta, state.feedback[layer - 1] + change))
            biases.append(self._bias(theta, state.biases[layer - 1], activities, errors, layer))
        carried = tuple(feedback) if self.scheme.learned else state.feedback
        memory = GenomeMemory(thresholds, state.memory.clock + 1.0)
        return NetworkState(tuple(kernels), tuple(biases), carried, memory)

    def _errors(self, theta, state, activities):
        """The error of every unit, layer 0 first, each `[tasks, batch, units]`."""
        top = len(activities.pre) - 1
        signals = {
            "current": activities.pre[top],
            "soft_winner": competition(activities.pre[top]) - 1.0,
            "winner": winners(activities.pre[top]),
            "output": batch_norm(activities.post[top]),
        }
        error = _scaled(_weighted(theta["top_error"], TOP_ERROR, signals))
        top_error, errors = error, [error]
        for layer in range(top, 0, -1):
            if self.scheme.carries:
                signals = {
                    "output": batch_norm(activities.post[layer]),
                    "soft_winner": competition(activities.pre[layer]) - 1.0,
                }
                error = error * tf.sigmoid(activities.pre[layer])
                error += _weighted(theta["error_down"], ERROR_DOWN, signals)
            error = _scaled(self.scheme.down(state, layer, error[:, None], top_error[:, None])[:, 0])
            errors.append(error)
        return errors[::-1]

    def _planes(self, kernel, activities, errors, threshold, layer):
        """The planes of one kernel by name, each `[tasks, in, out]`."""
        current, output, error = activities.pre[layer], activities.post[layer], errors[layer]
        sender, receiver = batch_norm(activities.pre[layer - 1]), batch_norm(output)
        won = winners(current)
        correlation = mean_product(receiver, receiver)
        units = tf.cast(tf.shape(kernel)[2], kernel.dtype)
        power = mean_square(output)
        return {
            "hebb": mean_product(sender, receiver),
            "winner": mean_product(sender, receiver * won),
            "soft_winner": mean_product(sender, competition(current) - 1.0),
            "bcm": mean_product(sender, output * (output - threshold)),
            "error": mean_product(sender, error),
            "gated_error": mean_product(sender, error * tf.sigmoid(current)),
            "sender_error": mean_product(errors[layer - 1], receiver),
            "decorrelation": -tf.matmul(kernel, correlation) * tf.math.rsqrt(units),
            "sanger": -tf.matmul(kernel, tf.linalg.band_part(correlation, 0, -1)) * tf.math.rsqrt(units),
            "oja": -kernel * power / (tf.reduce_mean(power, axis=-1, keepdims=True) + 1e-6),
            "winner_decay": -kernel * units * tf.reduce_mean(won, axis=1, keepdims=True),
            "decay": -kernel,
        }

    def _step_size(self, theta, clock, is_top):
        """`[tasks, 1, 1]`; bounded above, because unbounded steps end in chaos."""
        size = theta["step"] + theta["step_top"] if is_top else theta["step"]
        return tf.exp(tf.minimum(size, -1.0) + fall(theta["anneal"], clock))[:, None, None]

    def _held(self, theta, kernel):
        """Columns scaled towards unit rms; at a homeostasis of 1 all the way, at 0 not at all."""
        square = tf.reduce_mean(tf.square(kernel), axis=1, keepdims=True) + 1e-8
        return kernel * tf.exp(-0.5 * tf.sigmoid(theta["homeostasis"])[:, None, None] * tf.math.log(square))

    def _bias(self, theta, old, activities, errors, layer):
        power = mean_square(activities.post[layer])
        units = tf.cast(tf.shape(power)[-1], power.dtype)
        signals = {
            "constant": tf.ones_like(power),
            "wins": units * tf.reduce_mean(winners(activities.pre[layer]), axis=1, keepdims=True) - 1.0,
            "power": power / (tf.reduce_mean(power, axis=-1, keepdims=True) + 1e-6) - 1.0,
            "error": tf.reduce_mean(errors[layer], axis=1, keepdims=True),
        }
        drive = tf.tanh(_weighted(theta["bias"], BIAS, signals))[:, 0]
        return 0.99 * old + tf.exp(tf.minimum(theta["bias_step"], -1.0))[:, None] * drive


def _weighted(coefficients, names, signals):
    """Signals `[tasks, ...]` by name, summed with `coefficients [tasks, names]`."""
    return sum(coefficients[:, i, None, None] * signals[name] for i, name in enumerate(names))


def _mixture(coefficients, names, planes):
    """The change of a kernel before the step size: columns of at most about unit rms."""
    scaled = {
        name: plane if name in LENGTH_PLANES else unit_columns(plane, 1e-6) for name, plane in planes.items()
    }
    change = _weighted(coefficients, names, scaled)
    return change * tf.math.rsqrt(0.01 + tf.reduce_mean(tf.square(change), axis=1, keepdims=True))


def _scaled(errors):
    """Errors `[tasks, batch, units]` of a layer, mean 0 and variance 1 over batch and units."""
    return channel_norm(errors[:, None])[:, 0]
