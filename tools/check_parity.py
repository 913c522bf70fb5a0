"""Checks the published 2019 rule and the ridge probe against recorded figures: `python tools/check_parity.py DIR`.

DIR holds config_*.npz (inputs, mid values and results of the published code), objective_*.npz (of its meta-objective) and
ckpt/ (a checkpoint of it, and one_step.npz); whatever is there is checked. Printed is, for each stage, the greatest gap over
the reference's root mean square: once computed from the recorded inputs of that stage, and once in one go from the batch,
where rounding grows down the layers. Exit code 1 if a gap is over its tolerance.
"""

import argparse
import glob
import json
import os
import re
import sys
import zipfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from meta_rules.errors import UserError, exits_cleanly
from meta_rules.networks import Activities, BaseNetwork, NetworkState
from meta_rules.probes import ridge_probe
from meta_rules.rules import Metz2019, per_task
from meta_rules.rules import metz2019_checkpoint as published
from meta_rules.rules.metz2019_terms import TERMS

#: Tolerances by stage: from the recorded inputs of the stage, and in one go from the batch.
TOLERANCES = {
    "x": (1e-5, 1e-5),
    "z": (1e-5, 1e-5),
    "top delta": (1e-5, 3e-5),
    "h": (1e-5, 1e-3),
    "d": (3e-6, 1e-3),
    "delta": (3e-6, 1e-3),
    **{f"term {name}": (1e-5, 1e-3) for name in TERMS},
    "core": (1e-5, 2e-4),
    "change_w": (1e-5, 6e-5),
    "change_b": (1e-5, 2e-4),
    "embedding": (1e-5, 1e-5),
}
STATE_TOLERANCE = 1e-6
OBJECTIVE_TOLERANCES = {"ridge_w": 5e-5, "accuracy_test": 0.0, "accuracy_train": 0.0}
LOSS_TOLERANCE = 1e-5
#: Settings of the published objective and what they are called here.
OBJECTIVE_OPTIONS = {
    "ridge_factor": "ridge",
    "center_y": "centre_targets",
    "normalize_y_hat": "normalise_predictions",
    "zero_one_labels": "zero_one_labels",
    "test_train_scalar": "query_weight",
}


class Table:
    """The greatest gap of every stage of one file, and what it may be."""

    def __init__(self):
        self.rows = {}

    def add(self, stage, way, mine, reference, tolerance):
        """Notes a gap; `way` is 0 from recorded inputs, 1 in one go from the batch."""
        mine, reference = np.asarray(mine, np.float64), np.asarray(reference, np.float64)
        if mine.shape != reference.shape:
            raise UserError(f"{stage}: recorded with shape {reference.shape}, computed {mine.shape}.")
        rms = np.sqrt(np.mean(np.square(reference)))
        gap = float(np.max(np.abs(mine - reference))) / (rms if rms > 0.0 else 1.0)
        found = self.rows.setdefault(stage, {})
        # np.maximum, unlike max, keeps what is not a number: that is a miss.
        found[way] = (float(np.maximum(gap, found[way][0])) if way in found else gap, tolerance)

    def missed(self):
        """How many gaps are over their tolerance."""
        return sum(not gap <= limit for row in self.rows.values() for gap, limit in row.values())

    def lines(self):
        """The table as text."""
        yield f"  {'stage':<24}{'from recorded inputs':>24}{'from the batch':>24}"
        for stage, row in self.rows.items():
            cells = []
            for way in (0, 1):
                gap, limit = row.get(way, (None, None))
                text = "-" if gap is None else f"{gap:.1e} of {limit:.0e}{' ' if gap <= limit else '!'}"
                cells.append(f"{text:>24}")
            yield f"  {stage:<24}{''.join(cells)}{'' if all(g <= t for g, t in row.values()) else '  MISSED'}"


def channels_first(recorded):
    """Recorded `[batch, units, channels]` as `[1, channels, batch, units]`."""
    return tf.constant(np.transpose(recorded, (2, 0, 1))[None])


class Comparison:
    """Compares one recorded run of the rule with this project's, stage by stage and in one go.

    Args:
      data: dict of array name -> array.
      config: dict of the recorded settings.
      rule: a `Metz2019` with the recorded meta-parameters.
      table: `Table` to fill.
    """

    def __init__(self, data, config, rule, table):
        self.data, self.rule, self.table = data, rule, table
        self.depth = sum(re.fullmatch(r"init/W\d+", name) is not None for name in data)
        self.state = self.recorded_state("init")
        sizes = [self.state.kernels[0].shape[1]] + [kernel.shape[2] for kernel in self.state.kernels]
        self.activation = config["activation"]
        self.network = rule.network(sizes, self.activation)
        self.theta = per_task(rule.theta(), 1)
        self.batches = data["batches"][:, None][..., data["init/perm"]]

    def recorded_state(self, when):
        """The recorded `NetworkState`: at `init`, `step1`, ..."""

        def arrays(kind):
            return tuple(tf.constant(self.data[f"{when}/{kind}{layer}"][None]) for layer in range(self.depth))

        return NetworkState(arrays("W"), arrays("b"), arrays("V"))

    def note(self, stage, way, mine, name, recorded=None):
        """Adds one gap, where the file holds the figure `mid/NAME`; `mine` is a function that computes it."""
        if f"mid/{name}" in self.data:
            value = np.asarray(mine()[0])
            # Channels first to the recorded order.
            value = np.transpose(value, (1, 2, 0)) if value.ndim == 3 else value
            self.table.add(stage, way, value, self.data[f"mid/{name}"], TOLERANCES[stage][way])

    def has(self, *names):
        """Whether all those mid values are recorded."""
        return all(f"mid/{name}" in self.data for name in names)

    def run(self):
        """All comparisons."""
        if self.has(*(f"x_{i}" for i in range(self.depth + 1))):
            self.from_recorded_inputs()
        self.in_one_go()
        self.steps()

    def from_recorded_inputs(self):
        """Every stage from the recorded inputs of that stage."""
        rule, theta, state, mid = self.rule, self.theta, self.state, lambda name: self.data[f"mid/{name}"]
        post = [tf.constant(mid(f"x_{i}")[None]) for i in range(self.depth + 1)]
        pre = [post[0]] + [tf.constant(mid(f"z_{i}")[None]) for i in range(1, self.depth + 1)]
        activities = Activities(tuple(pre), tuple(post))
        self.note("x", 0, lambda: self.batches[0], "x_0")
        for i in range(1, self.depth + 1):
            above = self.one_layer(post[i - 1], i)
            self.note("z", 0, lambda above=above: above.pre[1], f"z_{i}")
            self.note("x", 0, lambda above=above: above.post[1], f"x_{i}")
        self.note("top delta", 0, lambda: rule.top_delta(theta, post[-1]), "top_delta")
        for i in range(self.depth, -1, -1):
            if not self.has(f"d_{i}", f"h_{i}"):
                continue
            errors, hidden = channels_first(mid(f"d_{i}")), channels_first(mid(f"h_{i}"))
            self.note(
                "h",
                0,
                lambda i=i, d=errors: rule.unit_network(theta, state, activities, i, d),
                f"h_{i}",
            )
            self.note(
                "delta", 0, lambda i=i, d=errors, h=hidden: rule.next_delta(theta, pre[i], d, h), f"delta_{i}"
            )
            if i and self.has(f"delta_{i}"):
                deltas = channels_first(mid(f"delta_{i}"))
                self.note("d", 0, lambda i=i, e=deltas: rule.send_down(state, i, e, e), f"d_{i - 1}")
        if self.has(*(f"h_{i}" for i in range(self.depth + 1))):
            hidden = [channels_first(mid(f"h_{i}")) for i in range(self.depth + 1)]
            readouts = [rule.readouts(theta, h) for h in hidden]
            for layer in range(1, self.depth + 1):
                self.note_changes(
                    0, rule.changes(theta, state, activities, readouts, layer), layer, terms_only=True
                )
                self.note(
                    "change_b", 0, lambda h=hidden[layer]: rule.bias_change(theta, h), f"change_b_{layer - 1}"
                )
        self.merges_from_recorded_terms()
        self.first_step_from_recorded_changes()

    def merges_from_recorded_terms(self):
        """The merge, from the recorded terms."""
        for direction, suffix, letter in (("forward", "", "w"), ("backward", "V", "v")):
            for i in range(self.depth):
                names = {name: f"term{suffix}_{i}/{name}" for name in TERMS}
                if not self.has(*names.values()):
                    continue
                twelve = {name: tf.constant(self.data[f"mid/{key}"][None]) for name, key in names.items()}
                core, change = self.rule.merge(self.theta, direction, twelve)
                self.note("core", 0, lambda core=core: core, f"core_{letter}_{i}")
                self.note("change_w", 0, lambda change=change: change, f"change_{letter}_{i}")

    def first_step_from_recorded_changes(self):
        """The state after one step, from the recorded changes."""
        if "step1/W0" not in self.data:
            return
        after = self.recorded_state("step1")
        both = "v" if self.has("change_v_0") else "w"
        kinds = (("kernels", "w"), ("feedback", both), ("biases", "b"))
        for field, letter in kinds:
            for i in range(self.depth):
                if self.has(f"change_{letter}_{i}"):
                    change = tf.constant(self.data[f"mid/change_{letter}_{i}"][None])
                    mine = self.rule.step(getattr(self.state, field)[i], change)
                    self.table.add(
                        "state after 1 step", 0, mine, getattr(after, field)[i].numpy(), STATE_TOLERANCE
                    )

    def one_layer(self, below, layer):
        """`Activities` of a network that is layer `layer` alone."""
        kernel, bias = self.state.kernels[layer - 1], self.state.biases[layer - 1]
        network = BaseNetwork(
            kernel.shape[1:],
            activation=self.activation,
            epsilon=self.rule.network_epsilon,
            standardise_inputs=self.rule.standardise_inputs,
        )
        return network.activities(NetworkState((kernel,), (bias,), ()), below)

    def note_changes(self, way, changes, layer, terms_only=False):
        """Adds terms, core and change of one weight layer."""
        for direction, suffix, letter in (("forward", "", "w"), ("backward", "V", "v")):
            if direction not in changes:
                continue
            found, i = changes[direction], layer - 1
            for name in TERMS:
                self.note(f"term {name}", way, lambda f=found, n=name: f.terms[n], f"term{suffix}_{i}/{name}")
            if not terms_only:
                self.note("core", way, lambda f=found: f.core, f"core_{letter}_{i}")
                self.note("change_w", way, lambda f=found: f.change, f"change_{letter}_{i}")

    def in_one_go(self):
        """Every stage as it comes out of one application to the first batch."""
        rule, theta, state = self.rule, self.theta, self.state
        activities = self.network.activities(state, tf.constant(self.batches[0]))
        sweep = rule.sweep_down(theta, state, activities)
        readouts = [rule.readouts(theta, hidden) for hidden in sweep.hidden]
        for i in range(self.depth + 1):
            self.note("x", 1, lambda i=i: activities.post[i], f"x_{i}")
            self.note("z", 1, lambda i=i: activities.pre[i], f"z_{i}")
        self.note("top delta", 1, lambda: sweep.errors[-1], "top_delta")
        for i in range(self.depth, -1, -1):
            d, h = sweep.errors[i], sweep.hidden[i]
            self.note("d", 1, lambda d=d: d, f"d_{i}")
            self.note("h", 1, lambda h=h: h, f"h_{i}")
            self.note(
                "delta",
                1,
                lambda i=i, d=d, h=h: rule.next_delta(theta, activities.pre[i], d, h),
                f"delta_{i}",
            )
        for layer in range(1, self.depth + 1):
            self.note_changes(1, rule.changes(theta, state, activities, readouts, layer), layer)
            self.note(
                "change_b",
                1,
                lambda i=layer: rule.bias_change(theta, sweep.hidden[i]),
                f"change_b_{layer - 1}",
            )

    def steps(self):
        """The compiled rule applied batch after batch: the state after each recorded step, and the embedding."""
        compiled = tf.function(
            lambda state, batch: self.rule.update(self.theta, self.network, state, batch, None),
            jit_compile=True,
            autograph=False,
        )
        state = self.state
        for count, batch in enumerate(self.batches, start=1):
            state = compiled(state, tf.constant(batch))
            if f"step{count}/W0" in self.data:
                for mine, theirs in zip(
                    tf.nest.flatten(state), tf.nest.flatten(self.recorded_state(f"step{count}")), strict=True
                ):
                    name = f"state after {count} step{'s' if count > 1 else ''}"
                    self.table.add(name, 1, mine, theirs, STATE_TOLERANCE)
            embedding = f"embed_after{count}"
            if embedding in self.data:
                for way, source in ((0, self.recorded_state(f"step{count}")), (1, state)):
                    mine = self.network(source, tf.constant(self.batches[0]))[0]
                    self.table.add("embedding", way, mine, self.data[embedding], TOLERANCES["embedding"][way])


def read_arrays(path):
    """The arrays of a recorded file, and its settings.

    Raises:
      UserError: the file is not what it should be.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            data = {name: archive[name] for name in archive.files}
        return data, json.loads(data["config_json"].tobytes().decode())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is not a file of recorded figures ({type(error).__name__}: {error})."
        ) from error


def settings(config):
    """Recorded settings that are arguments of `Metz2019`."""
    names = {
        "lr": "step_size",
        "identical_updates": "identical_updates",
        "normalize_epsilon": "normalise_epsilon",
    }
    found = {mine: config[theirs] for theirs, mine in names.items() if theirs in config}
    if isinstance(found.get("normalise_epsilon"), list):
        found["normalise_epsilon"] = found["normalise_epsilon"][0]
    return found


def check_config(path):
    """The `Table` of one config_*.npz, whose meta-parameters are in it."""
    data, config = read_arrays(path)
    try:
        names = json.loads(data["theta_names_json"].tobytes().decode())
        arrays = {name: data[f"theta_{index:03d}"] for index, name in enumerate(names)}
        shapes = {name: value.shape for name, value in arrays.items()}
        rule = Metz2019(**published.stored_configuration(shapes), **settings(config))
        rule.assign(published.read_variables(rule, shapes, arrays.get).theta)
        table = Table()
        Comparison(data, config, rule, table).run()
    except KeyError as error:
        raise UserError(f"{path} lacks {error.args[0]}.") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return table


def check_checkpoint(folder):
    """The `Table` of a checkpoint's folder: its meta-parameters on what one_step.npz records."""
    path = os.path.join(folder, "one_step.npz")
    data, config = read_arrays(path)
    rule, _ = published.read_checkpoint(folder, identical_updates=config.get("identical_updates", True))
    arguments = {**rule.rule_config(), **settings(config)}
    again = Metz2019(**arguments)
    again.assign(rule.theta())
    table = Table()
    try:
        Comparison(data, config, again, table).run()
    except KeyError as error:
        raise UserError(f"{path} lacks {error.args[0]}.") from error
    return table


def check_objective(path):
    """The `Table` of one objective_*.npz, all variants in it."""
    data, config = read_arrays(path)
    table = Table()
    given = ("features_train", "labels_onehot_train", "features_test", "labels_onehot_test")
    variants = {"": {}, **config.get("variants", {})}
    known = OBJECTIVE_OPTIONS.keys()
    try:
        for name, change in variants.items():
            unknown = sorted(change.keys() - known)
            if unknown:
                raise UserError(
                    f"{path}: variant {name!r} sets {', '.join(unknown)}, which this project has not."
                )
            options = {
                mine: {**config, **change}[key]
                for key, mine in OBJECTIVE_OPTIONS.items()
                if key in config | change
            }
            found = ridge_probe(*(tf.constant(data[key][None]) for key in given), **options)
            figures = {
                "ridge_w": found.weights,
                "mse_test": found.query_error,
                "mse_train": found.support_error,
                "ridge_component": found.ridge_term,
                "total_loss": found.query_error + found.ridge_term,
                "loss": found.loss,
                "accuracy_test": found.query_accuracy,
                "accuracy_train": found.support_accuracy,
            }
            prefix = f"{name}/" if name else ""
            for key, mine in figures.items():
                if prefix + key in data:
                    limit = OBJECTIVE_TOLERANCES.get(key, LOSS_TOLERANCE)
                    table.add(f"{prefix}{key}", 1, mine[0], data[prefix + key], limit)
    except KeyError as error:
        raise UserError(f"{path} lacks {error.args[0]}.") from error
    return table


def check(folder):
    """Checks everything in a folder and prints a table a file.

    Returns:
      The number of gaps over their tolerance.

    Raises:
      UserError: nothing to check in it, or a file that cannot be used.
    """
    jobs = [
        (path, check_config) for path in sorted(glob.glob(os.path.join(glob.escape(folder), "config_*.npz")))
    ]
    jobs += [
        (path, check_objective)
        for path in sorted(glob.glob(os.path.join(glob.escape(folder), "objective_*.npz")))
    ]
    if os.path.isfile(os.path.join(folder, "ckpt", "one_step.npz")):
        jobs.append((os.path.join(folder, "ckpt"), check_checkpoint))
    if not jobs:
        raise UserError(
            f"Nothing to check in {folder!r}: expected config_*.npz, objective_*.npz or ckpt/one_step.npz."
        )
    missed = 0
    for path, job in jobs:
        table = job(path)
        if not table.rows:
            raise UserError(f"{path} holds no figure to compare with.")
        print(os.path.relpath(path, folder))
        for line in table.lines():
            print(line)
        missed += table.missed()
    return missed


@exits_cleanly
def main(arguments=None):
    """Parses the command line and checks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", metavar="DIR", help="folder of recorded figures")
    missed = check(parser.parse_args(arguments).folder)
    print(f"{missed} gaps over their tolerance." if missed else "All within tolerance.")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
