"""What every update rule is, and the registry of rules.

A rule is a Keras layer whose weights are the meta-parameters theta. Its mathematics is a pure function `update` of theta,
the network's state and a batch. In that function theta has a leading *task* axis like everything else: each task may have
its own copy. That is what lets evolution strategies perturb a rule a task, and what gives backpropagation a gradient a
task, so that a task which is no longer finite can be left out of the mean.

To add a rule: a file in this folder with one subclass, decorated with `@register("name")`, imported in `__init__.py`.
The contract tests then find it by themselves.
"""

from typing import NamedTuple

import keras
import tensorflow as tf

from meta_rules import feedback as feedback_schemes
from meta_rules import stateless
from meta_rules.errors import UserError
from meta_rules.networks import BaseNetwork, NetworkState

REGISTRY = {}


def register(name):
    """Class decorator: makes a rule known by that name on command lines, in gin and in saved files."""

    def add(cls):
        if name in REGISTRY:
            raise ValueError(f"Two rules are registered as {name!r}.")
        cls.rule_name = name
        REGISTRY[name] = cls
        return cls

    return add


def make(name, **config):
    """A fresh rule of the registered name.

    Raises:
      UserError: no such rule, or an argument that its constructor does not take.
    """
    if name not in REGISTRY:
        raise UserError(f"Unknown rule {name!r}; known: {', '.join(sorted(REGISTRY))}.")
    try:
        return REGISTRY[name](**config)
    except TypeError as error:
        raise UserError(f"Rule {name!r}: {error}") from error


class Parameter(NamedTuple):
    """One meta-parameter: its shape without the task axis, and how it starts.

    `scale` is the standard deviation of a truncated normal; None fills with `value`, a number or one for each entry.
    """

    shape: tuple
    scale: float | None = None
    value: float | list = 0.0


def fan_in(*shape):
    """A weight whose outputs start with the scale of its inputs; the last axis is the output."""
    size = 1
    for axis in shape[:-1]:
        size *= axis
    return Parameter(tuple(shape), scale=max(size, 1) ** -0.5)


class Side(NamedTuple):
    """Side information that comes with a batch, for rules that say `needs_labels`.

    Attributes:
      labels: one-hot `[tasks, batch, classes]`; whatever stands where the mask is 0 must not matter.
      mask: `[tasks, batch]`, 1 for an example whose label is known and 0 for the others.
    """

    labels: tf.Tensor
    mask: tf.Tensor


class UpdateRule(keras.layers.Layer):
    """Base class of all update rules.

    Subclasses give `parameters`, `update`, and where they differ from the default `initial_state`; they say what they
    claim in the class attributes, and the contract tests hold them to it.

    Args:
      feedback: name of the feedback scheme (see `meta_rules.feedback`).
      seed: of the initial meta-parameters.
    """

    rule_name = None
    #: Permuting the input units permutes the rows of W[0] and changes nothing else.
    permutation_equivariant = True
    #: The change of W_ij depends only on what units i and j see (batch statistics of theirs included).
    neuron_local = True
    #: Whether `update` takes `side=Side(...)`, the labels of some of the batch's examples. Its top units are the classes.
    needs_labels = False
    #: Whether the base network standardises its inputs, and the epsilon of its batch normalisation.
    standardise_inputs = True
    network_epsilon = 1e-6
    #: Whether the top layer of the base network is linear: features are then its z.
    linear_top = False
    #: How much of their length features keep, in [0, 1]: contrast and relations compare directions, not lengths.
    length_kept = 1.0

    #: Channels of the widest `[tasks, channels, batch, units]` that an update makes: what its speed and memory go by.
    array_channels = 1

    def __init__(self, feedback="learned", seed=0, **kwargs):
        super().__init__(**kwargs)
        self.feedback = feedback
        self.seed = seed
        self.scheme = feedback_schemes.scheme(feedback)

    def build_parameters(self):
        """Makes the weights; a subclass calls it at the end of its constructor."""
        self._weight_of = {}
        for i, (name, parameter) in enumerate(self.parameters().items()):
            if parameter.scale is None:
                start = keras.initializers.Constant(parameter.value)
            else:
                start = keras.initializers.TruncatedNormal(stddev=parameter.scale, seed=self.seed * 10007 + i)
            self._weight_of[name] = self.add_weight(
                name=name.replace("/", "_"), shape=parameter.shape, initializer=start
            )
        self.built = True

    def parameters(self):
        """The meta-parameters: a dict of name -> `Parameter`."""
        raise NotImplementedError

    def update(self, theta, network, state, inputs, keys):
        """One application of the rule to a batch of networks.

        Args:
          theta: dict of name -> `[tasks, ...]`, as `per_task` gives it.
          network: the `BaseNetwork` that the state belongs to.
          state: `NetworkState` with leading task axes.
          inputs: an unlabelled batch `[tasks, batch, in]`.
          keys: `[tasks, 2]` random keys of this step; a deterministic rule ignores them.
          (A rule that says `needs_labels` also takes `side`, the `Side` of the batch; without it no label is known.)

        Returns:
          The next `NetworkState`, of the same shapes and dtypes.
        """
        raise NotImplementedError

    def network(self, layer_sizes, activation="relu"):
        """A base network as this rule wants it.

        Raises:
          ValueError: sizes that the network or this rule cannot work with.
        """
        return BaseNetwork(
            layer_sizes,
            activation=activation,
            epsilon=self.network_epsilon,
            standardise_inputs=self.standardise_inputs,
            linear_top=self.linear_top,
            length_kept=self.length_kept,
            dtype=self.dtype,
        )

    def initial_kernel(self, keys, rows, columns):
        """Random receptive fields `[tasks, rows, columns]`, each column of unit root mean square."""
        tasks = tf.shape(keys)[0]
        drawn = stateless.normal(keys, rows * columns, self.dtype)
        return unit_columns(tf.reshape(drawn, [tasks, rows, columns]))

    def initial_state(self, layer_sizes, keys):
        """A fresh network for every key `[tasks, 2]`; the sizes may be scalar tensors."""
        kernels, biases = [], []
        tasks = tf.shape(keys)[0]
        for layer, (rows, columns) in enumerate(zip(layer_sizes[:-1], layer_sizes[1:], strict=True)):
            kernels.append(self.initial_kernel(stateless.fold(keys, "kernel", layer), rows, columns))
            biases.append(tf.zeros([tasks, columns], self.dtype))
        carried = self.scheme.initial(layer_sizes, stateless.fold(keys, "feedback"), self.initial_kernel)
        return NetworkState(tuple(kernels), tuple(biases), carried, self.initial_memory(layer_sizes, keys))

    def initial_memory(self, layer_sizes, keys):
        """What a rule keeps besides weights; nothing by default."""
        return ()

    def theta(self):
        """The meta-parameters as a dict of name -> tensor, without a task axis."""
        return {name: tf.convert_to_tensor(weight) for name, weight in self._weight_of.items()}

    def variables_by_name(self):
        """The meta-parameters as a dict of name -> Keras variable."""
        return dict(self._weight_of)

    def assign(self, theta):
        """Sets the meta-parameters from a dict of name -> array.

        Raises:
          ValueError: a name or shape does not fit this rule.
        """
        missing, extra = self._weight_of.keys() - theta.keys(), theta.keys() - self._weight_of.keys()
        if missing or extra:
            raise ValueError(
                f"Rule {self.rule_name!r}: missing parameters {sorted(missing)}, unknown {sorted(extra)}."
            )
        for name, weight in self._weight_of.items():
            if tuple(weight.shape) != tuple(theta[name].shape):
                raise ValueError(
                    f"Rule {self.rule_name!r}: parameter {name!r} has shape {tuple(theta[name].shape)}, "
                    f"expected {tuple(weight.shape)}."
                )
        for name, weight in self._weight_of.items():
            weight.assign(theta[name])

    def call(self, state, inputs, network, keys=None, side=None):
        """`update` with this layer's own weights shared by all tasks."""
        tasks = tf.shape(inputs)[0]
        if keys is None:
            keys = stateless.split(stateless.key(0), tasks)
        extra = {} if side is None else {"side": side}
        return self.update(per_task(self.theta(), tasks), network, state, inputs, keys, **extra)

    def rule_config(self):
        """The constructor's arguments, JSON-ready: what `make(rule_name, **config)` needs to build this rule again."""
        return {"feedback": self.feedback, "seed": self.seed}

    def get_config(self):
        """The constructor's arguments and Keras's own."""
        return {**super().get_config(), **self.rule_config()}


def per_task(theta, tasks):
    """Shared meta-parameters, one copy a task: each `[...]` becomes `[tasks, ...]`."""
    return {
        name: tf.broadcast_to(value[None], tf.concat([[tasks], tf.shape(value)], 0))
        if not isinstance(tasks, int)
        else tf.broadcast_to(value[None], [tasks, *value.shape])
        for name, value in theta.items()
    }


def unit_columns(matrix, epsilon=1e-8):
    """The matrix `[..., rows, columns]` with every column scaled to unit root mean square."""
    square = tf.reduce_mean(tf.square(matrix), axis=-2, keepdims=True)
    return matrix * tf.math.rsqrt(square + epsilon)
