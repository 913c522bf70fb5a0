"""The meta-parameters of the published 2019 rule under the names of the published code, and how to read its checkpoints.

Source of the names and shapes: the code published with Metz et al., ICLR 2019 (TensorFlow 1, Sonnet), as listed in section 11
of the project's reference (metz2019.md).
"""

import os
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from meta_rules.errors import UserError
from meta_rules.rules.metz2019 import UNIT_CONVOLUTIONS, Metz2019

#: The published code's names of the readouts, where they differ from the terms that they serve.
_READOUT_NAMES = {
    "0_order": "weight_readout_0",
    "1_order": "weight_readout_1",
    "rbf": "weight_readout_rbf",
}
#: What TensorFlow's reader raises on files that are not what they should be.
_READER_ERRORS = (tf.errors.OpError, ValueError, RuntimeError, LookupError, TypeError, OSError)
_MOVING = ("moving_mean", "moving_variance")


class Stored(NamedTuple):
    """One trainable variable of the published code.

    Attributes:
      shape: as stored.
      parameter: the name of the meta-parameter of `Metz2019` that it is; None if it cannot change the result (a bias that the
        following batch normalisation removes).
    """

    shape: tuple
    parameter: str | None


class Read(NamedTuple):
    """What was found among named arrays.

    Attributes:
      theta: dict of meta-parameter -> float32 array, ready for `Metz2019.assign`.
      prefix: the leading scope of the stored names, with its last slash, or empty.
      mapped: dict of stored name -> meta-parameter.
      ignored: dict of stored name -> why it is not needed.
      step: the stored `global_step`, or None.
    """

    theta: dict
    prefix: str
    mapped: dict
    ignored: dict
    step: int | None = None


class MissingVariables(UserError):
    """Trainable variables of the rule that are not in a checkpoint; `names` lists them all."""

    def __init__(self, names, shown=4):
        rest = f" and {len(names) - shown} more" if len(names) > shown else ""
        super().__init__(f"Missing from it: {', '.join(names[:shown])}{rest}.")
        self.names = names


def _numbered(name, index):
    return f"{name}_{index}" if index else name


def stored_variables(rule):
    """The trainable variables of the published code for a rule of this configuration: dict of name -> `Stored`, no prefix."""
    shapes = {name: parameter.shape for name, parameter in rule.parameters().items()}
    stored = {}

    def add(name, parameter, shape=None):
        stored[name] = Stored(tuple(shape or shapes[parameter]), parameter)

    def convolution(scope, index, path, norm=True, norm_index=None):
        name = _numbered(f"{scope}conv_1d", index)
        add(f"{name}/w", f"{path}/kernel")
        bias_shape = shapes[f"{path}/kernel"][-1:]
        if norm:
            stored[f"{name}/b"] = Stored(bias_shape, None)
            norm_index = index if norm_index is None else norm_index
            norm_shape = (1, 1, *bias_shape)
            add(_numbered(f"{scope}batch_norm", norm_index) + "/beta", f"{path}/shift", norm_shape)
        else:
            add(f"{name}/b", f"{path}/bias")

    top = ["in"] + [f"units_{i}" for i in range(rule.top_unit_layers)]
    top += [f"batch_{i}" for i in range(rule.top_batch_layers)]
    for index, part in enumerate(top):
        convolution("compute_top_delta/", index, f"top_delta/{part}")
    convolution("compute_top_delta/", len(top), "top_delta/out", norm=False)
    add("batch_norm/beta", "unit_network/in/shift", (1, 1, *shapes["unit_network/in/shift"]))
    for block in range(rule.blocks):
        path = f"unit_network/block_{block}"
        convolution("", block, f"{path}/batch", norm_index=block + 1)
        for k in range(UNIT_CONVOLUTIONS):
            convolution(_numbered("ConcatUnitConv", block) + "/", k, f"{path}/units_{k}")
    add("linear/w", "next_delta/kernel")
    add("linear/b", "next_delta/bias")
    for parameter in shapes:
        kind, *path = parameter.split("/")
        if kind == "readouts":
            direction, name, side, part = path
            scope = f"{direction}{_READOUT_NAMES.get(name, name)}_{side}"
            add(f"{scope}/linear/{'w' if part == 'kernel' else 'b'}", parameter)
        elif kind == "merge":
            shape = (*shapes[parameter], 1)
            add(f"{path[0]}_weight_readout_coeffs/{'b' if path[1] == 'bias' else 'w'}", parameter, shape)
    add("bias_readout/w", "bias_readout/kernel")
    add("bias_readout/b", "bias_readout/bias")
    return stored


def stored_configuration(shapes):
    """The sizes of a rule, as arguments of `Metz2019`, from a dict of stored name -> shape (with or without prefix).

    Raises:
      UserError: a variable that tells a size is missing.
    """
    prefix = find_prefix(shapes, stored_variables(Metz2019()))
    plain = {
        name.removeprefix(prefix): tuple(shape) for name, shape in shapes.items() if name.startswith(prefix)
    }

    def count(scope):
        return sum(_numbered(scope, i) + "/w" in plain for i in range(len(plain)))

    try:
        top, linear = plain["compute_top_delta/conv_1d/w"][2], plain["linear/w"]
        output_size = plain["compute_top_delta/batch_norm_1/beta"][2]
        readout = plain["forwardlin_upper_psd_top/linear/w"][1]
    except (KeyError, IndexError) as error:
        raise UserError(f"Missing from it, or of a wrong shape: {prefix}{error.args[0]}.") from error
    top_shapes = [plain.get(_numbered("compute_top_delta/conv_1d", i) + "/w") for i in range(1, len(plain))]
    # Where both kinds have one size the published two and two cannot be told from other numbers.
    mixing = 2 if top == output_size else top_shapes.count((3, output_size, output_size))
    return {
        "output_size": output_size,
        "top_channels": top,
        "top_unit_layers": mixing,
        "top_batch_layers": count("compute_top_delta/conv_1d") - 2 - mixing,
        "channels": linear[0],
        "error_channels": linear[1],
        "blocks": count("conv_1d"),
        "readout_channels": readout,
    }


def find_prefix(names, wanted):
    """The leading scope under which most of the wanted names are found.

    Raises:
      UserError: none of them is there, or two scopes hold equally many.
    """
    votes = {}
    for name in names:
        pieces = name.split("/")
        for cut in range(len(pieces)):
            if "/".join(pieces[cut:]) in wanted:
                prefix = "".join(piece + "/" for piece in pieces[:cut])
                votes[prefix] = votes.get(prefix, 0) + 1
    if not votes:
        raise UserError("No variable of the published rule is in it: is it the checkpoint of another model?")
    most = max(votes.values())
    best = sorted(prefix for prefix, count in votes.items() if count == most)
    if len(best) > 1:
        raise UserError(
            f"The rule is in it more than once, under {' and '.join(map(repr, best))}: give one of them."
        )
    return best[0]


def stored_output_size(shapes, prefix=None):
    """The output size that stored variables are for, from a dict of name -> shape.

    Raises:
      UserError: it cannot be told.
    """
    name = "compute_top_delta/conv_1d_1/w"
    wanted = stored_variables(Metz2019())
    prefix = find_prefix(shapes, wanted) if prefix is None else prefix
    if prefix + name not in shapes:
        missing = [key for key in wanted if prefix + key not in shapes]
        raise MissingVariables([prefix + key for key in missing])
    shape = tuple(shapes[prefix + name])
    if len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2] or shape[1] < 1:
        raise UserError(
            f"{prefix}{name} has shape {list(shape)}, expected [3, U, U] with U the number of output units."
        )
    return shape[1]


def read_variables(rule, shapes, get, prefix=None):
    """Picks a rule's meta-parameters from stored variables.

    Args:
      rule: a `Metz2019`, for its configuration.
      shapes: dict of stored name -> shape.
      get: function of a stored name that gives its array; called for what is needed only, after all checks of shapes.
      prefix: leading scope of the names; found by itself if None.

    Returns:
      `Read`.

    Raises:
      UserError: a variable is missing, has a wrong shape, or is not finite.
    """
    wanted = stored_variables(rule)
    prefix = find_prefix(shapes, wanted) if prefix is None else prefix
    missing = [prefix + name for name in wanted if prefix + name not in shapes]
    if missing:
        raise MissingVariables(missing)
    for name, stored in wanted.items():
        shape = tuple(shapes[prefix + name])
        if shape != stored.shape:
            raise UserError(
                f"{prefix}{name} has shape {list(shape)}, expected {list(stored.shape)} for a rule with "
                f"{rule.output_size} output units."
            )
    parameters = rule.parameters()
    theta, mapped, ignored = {}, {}, {}
    for name in shapes:
        stored = wanted.get(name.removeprefix(prefix)) if name.startswith(prefix) else None
        if stored is None:
            ignored[name] = _why(name)
        elif stored.parameter is None:
            ignored[name] = "dead: removed by the batch normalisation that follows"
        else:
            value = np.asarray(get(name), np.float32).reshape(parameters[stored.parameter].shape)
            if not np.isfinite(value).all():
                raise UserError(f"{name} holds numbers that are not finite.")
            theta[stored.parameter], mapped[name] = value, stored.parameter
    return Read(theta, prefix, mapped, ignored)


def _why(name):
    if name.endswith(_MOVING):
        return "moving statistics, never read"
    if any(piece.startswith("backward") for piece in name.split("/")):
        return "of separate updates of V, not asked for"
    return "not part of the rule"


def open_checkpoint(path):
    """A reader of a TensorFlow checkpoint.

    Args:
      path: its prefix (`dir/tf_graph_data.ckpt`), one of its files, or a folder with one checkpoint in it.

    Raises:
      UserError: there is no checkpoint, several, or a file that is not one.
    """
    prefix = path
    if os.path.isdir(path):
        found = sorted(name for name in os.listdir(path) if name.endswith(".index"))
        if len(found) != 1:
            raise UserError(
                f"{path} holds {len(found) or 'no'} checkpoints{': ' if found else ''}{', '.join(found)}; "
                f"give the prefix of one, such as {os.path.join(path, 'tf_graph_data.ckpt')}."
            )
        prefix = os.path.join(path, found[0])
    elif ".data-" in os.path.basename(path):
        prefix = path[: path.rindex(".data-")]
    prefix = prefix.removesuffix(".index")
    try:
        # The Saver's older format is a single file, without an index beside it.
        if not os.path.isfile(prefix + ".index") and not os.path.isfile(prefix):
            raise UserError(f"No checkpoint {prefix!r}: expected {prefix}.index and its data beside it.")
        return tf.train.load_checkpoint(prefix)
    except _READER_ERRORS as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path} is not a TensorFlow checkpoint, or it is damaged ({type(error).__name__})."
        ) from error


def read_checkpoint(path, output_size=None, identical_updates=True, prefix=None):
    """A `Metz2019` with the meta-parameters of a published checkpoint.

    Args:
      path: see `open_checkpoint`.
      output_size: of the networks that the rule is to be used on; the checkpoint's own if None.
      identical_updates: False reads the `backward` set as well.
      prefix: leading scope of the names, with its last slash; found by itself if None.

    Returns:
      `(rule, Read)`.

    Raises:
      UserError: not a checkpoint, a variable missing or of a wrong shape, or another output size.
    """
    reader = open_checkpoint(path)
    shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    shapes = dict(sorted(shapes.items()))

    def get(name):
        try:
            return reader.get_tensor(name)
        except _READER_ERRORS as error:
            raise UserError(
                f"{name} cannot be read: the checkpoint is damaged ({type(error).__name__})."
            ) from error

    try:
        stored = stored_output_size(shapes, prefix)
        if output_size not in (None, stored):
            raise UserError(
                f"Its rule is for {stored} output units, not {output_size}: two convolutions of the top delta take the output "
                f"units as channels, so the meta-parameters depend on that size. Use it on networks with {stored} output units."
            )
        rule = Metz2019(output_size=stored, identical_updates=identical_updates)
        read = read_variables(rule, shapes, get, prefix)
        step = int(get("global_step")) if shapes.get("global_step") == () else None
    except UserError as error:
        error.args = (f"{path}: {error}",)
        raise
    rule.assign(read.theta)
    return rule, read._replace(step=step)
