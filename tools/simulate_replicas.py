"""How the variance of the meta-gradient falls with replicas, from real meta-gradients of one theta.

python tools/simulate_replicas.py --gin_file=gin/mnist.gin --figure=replicas.png
python tools/simulate_replicas.py --gin_file=gin/mnist.gin --gin_param='MetaTrainer.start_from = "runs/mnist/rule"'

Replicas with a pool each go through meta-steps of the first family at a theta that stays as it is. Their gradients, of which
a run would take the mean, are kept apart, so that one simulation shows every smaller number of replicas too: the mean over N
replicas is a mean over disjoint groups of N. For comparison the same is done with N meta-steps in a row of one replica.
"""

import argparse
import json

import numpy as np

from meta_rules.console import quiet_import
from meta_rules.errors import UserError, exits_cleanly


def gradients(trainer, replicas, steps, warm_up):
    """The mean gradient of every replica `[steps, replicas, parameters]` at the trainer's theta, which stays as it is."""
    import tensorflow as tf

    problem, theta, names = trainer.problems[0], trainer.rule.theta(), sorted(trainer.rule.theta())
    length = trainer.estimator.length(problem, problem.family.windows[0])

    @tf.function(jit_compile=True, autograph=False)
    def step(theta, pool):
        found = trainer.estimator.estimate(problem, theta, pool, length)
        flat = tf.concat([tf.reshape(found.gradient[name], [-1]) for name in names], 0)
        return flat / tf.maximum(found.weight, 1.0), found.pool

    each = trainer.tasks // replicas
    pools = [
        tf.nest.map_structure(lambda leaf, r=r: leaf[r * each : (r + 1) * each], trainer.pools[0])
        for r in range(replicas)
    ]
    kept = []
    for number in range(warm_up + steps):
        results = [step(theta, pool) for pool in pools]
        pools = [pool for _, pool in results]
        if number >= warm_up:
            kept.append(np.stack([gradient.numpy() for gradient, _ in results]))
    return np.stack(kept)


def variance_of_means(samples, count):
    """Variance of the mean of `count` samples, summed over parameters, from disjoint groups.

    Args:
      samples: `[repeats, samples, parameters]`; the variance is taken within a repeat.
      count: divides the samples, of which there are at least twice as many.

    Returns:
      `(variance, standard error)` over the repeats.
    """
    repeats, number, _ = samples.shape
    means = samples.reshape(repeats, number // count, count, -1).mean(axis=2)
    each = means.var(axis=1, ddof=1).sum(axis=-1)
    return float(each.mean()), float(each.std(ddof=1) / repeats**0.5)


def analyse(found):
    """Figures about gradients `[steps, replicas, parameters]`, JSON-ready.

    `signal` is the squared length of the expected gradient, without bias; `shared` is the variance between meta-steps of what
    all replicas have in common, which more replicas do not lower (0 for independent replicas, up to its error).
    """
    steps, replicas, _ = found.shape
    counts = [2**i for i in range(12) if 2 ** (i + 1) <= replicas]
    rows = []
    for count in counts:
        variance, error = variance_of_means(found, count)
        rows.append({"replicas": count, "variance": variance, "standard_error": error})
    in_a_row = [
        {"steps": count, "variance": float(_between_replicas(found, count))}
        for count in counts
        if count <= steps
    ]
    mean = found.mean(axis=1)
    of_mean = found.var(axis=1, ddof=1).sum(axis=-1).mean() / replicas
    shared = mean.var(axis=0, ddof=1).sum() - of_mean
    overall = found.mean(axis=(0, 1))
    signal = (overall**2).sum() - _between_replicas(found, steps) / replicas
    return {
        "replicas": rows,
        "steps_in_a_row": in_a_row,
        "signal": float(signal),
        "shared": float(shared),
        "parameters": int(found.shape[-1]),
    }


def _between_replicas(found, count):
    """Variance of the mean over `count` meta-steps in a row of one replica."""
    steps, replicas, _ = found.shape
    means = found.reshape(steps // count, count, replicas, -1).mean(axis=1)
    return means.var(axis=1, ddof=1).sum(axis=-1).mean()


def slope(rows, name):
    """Exponent of the power law through the variances: -1 for independent samples."""
    return float(
        np.polyfit(np.log([row[name] for row in rows]), np.log([row["variance"] for row in rows]), 1)[0]
    )


def draw(found, path):
    """The figure: variance against replicas and against meta-steps in a row, with the 1/N line."""
    from matplotlib.figure import Figure

    rows, in_a_row = found["replicas"], found["steps_in_a_row"]
    counts = np.array([row["replicas"] for row in rows])
    first = rows[0]["variance"]
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.plot(counts, first / counts, color="0.6", linestyle="--", label="1 / N from one replica")
    axis.errorbar(
        counts,
        [row["variance"] for row in rows],
        yerr=[row["standard_error"] for row in rows],
        marker="o",
        capsize=3,
        label="mean over N replicas",
    )
    axis.plot(
        [row["steps"] for row in in_a_row],
        [row["variance"] for row in in_a_row],
        marker="s",
        label="mean over N meta-steps of one replica",
    )
    if found["signal"] > 0:
        axis.axhline(
            found["signal"], color="tab:green", linestyle=":", label="squared length of the expected gradient"
        )
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.set_xlabel("N")
    axis.set_ylabel("variance of the meta-gradient, summed over theta")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=130)


@exits_cleanly
def main(arguments=None):
    """Parses the command line and gin, simulates and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--gin_file", action="append", help="gin file of the run; repeatable (gin/mnist.gin)")
    parser.add_argument("--gin_param", action="append", default=[], help="gin binding; repeatable")
    parser.add_argument("--replicas", type=int, default=128, help="simulated replicas, a power of two")
    parser.add_argument("--tasks_per_replica", type=int, default=4, help="slots of a replica")
    parser.add_argument("--steps", type=int, default=16, help="meta-steps that are kept, a power of two")
    parser.add_argument("--warm_up", type=int, default=12, help="meta-steps before, so that ages are mixed")
    parser.add_argument("--figure", help="where the figure goes (PNG or SVG)")
    parser.add_argument("--json", help="where the figures go as JSON")
    given = parser.parse_args(arguments)
    for name, least in (("replicas", 4), ("steps", 2)):
        number = getattr(given, name)
        if number < least or number & (number - 1):
            raise UserError(f"--{name} must be a power of two, at least {least}.")
    with quiet_import():
        from meta_rules import configuration, estimators, rules  # noqa: F401
        from meta_rules.meta_trainer import MetaTrainer
        from meta_rules.training_run import TrainingRun  # noqa: F401
    tasks = f"MetaTrainer.tasks = {given.replicas * given.tasks_per_replica}"
    configuration.parse(given.gin_file or ["gin/mnist.gin"], [*given.gin_param, tasks])
    trainer = configuration.build(MetaTrainer)
    if trainer.estimator.host_update:
        raise UserError("A black-box optimiser has no gradient; bind another MetaTrainer.estimator.")
    found = analyse(gradients(trainer, given.replicas, given.steps, given.warm_up))
    report(found)
    if given.json:
        with open(given.json, "w") as file:
            json.dump(found, file, indent=2)
    if given.figure:
        draw(found, given.figure)


def report(found):
    """Prints the figures as a table."""
    print(f"{'N':>4}  {'variance, N replicas':>22}  {'N meta-steps in a row':>22}")
    in_a_row = {row["steps"]: row["variance"] for row in found["steps_in_a_row"]}
    for row in found["replicas"]:
        spread = f"{row['variance']:.4g} +- {row['standard_error']:.2g}"
        other = in_a_row.get(row["replicas"])
        print(f"{row['replicas']:>4}  {spread:>22}  {'' if other is None else f'{other:.4g}':>22}")
    exponents = slope(found["replicas"], "replicas"), slope(found["steps_in_a_row"], "steps")
    print(f"exponents: {exponents[0]:.3f} of replicas, {exponents[1]:.3f} of meta-steps in a row")
    print(f"squared length of the expected gradient: {found['signal']:.4g}")
    print(f"variance shared by all replicas: {found['shared']:.2g}")


if __name__ == "__main__":
    main()
