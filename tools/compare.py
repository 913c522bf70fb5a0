"""Meta-trains several configurations on the same budget and shows how good the learned features get.

python tools/compare.py --gin_file=gin/mnist.gin --gin_file=gin/pes.gin --task_steps=50000 --seeds=0,1 --out_dir=docs/comparison

A task-step is one application of a rule to one network, whatever it costs: backpropagation also goes back through it, an
antithetic pair counts as two. Every run is judged by its own configuration's judge, on the same draws, at equal
distances along the way. The folder gets a table (comparison.md), a plot (comparison.png) and a file a run; runs that are
there already are not repeated.
"""

import argparse
import hashlib
import json
import os
import time

import numpy as np
from matplotlib.figure import Figure

import gin
from meta_rules.errors import UserError, exits_cleanly


def meta_train(files, bindings, seed, budget, points):
    """Meta-trains one configuration with one seed.

    Returns:
      A JSON-ready dict: the seed, names of rule and estimator, and under `points` a dict for every judgement with
      `meta_steps`, `task_steps`, `seconds` (of meta-training so far) and `accuracy`, a dict of applications -> mean over
      draws (`raw`: of the probe on raw inputs).

    Raises:
      UserError: a mistake in the configuration, or none that can be judged.
    """
    from meta_rules import configuration
    from meta_rules.evaluation.few_shot import FewShotTrial
    from meta_rules.meta_trainer import MetaTrainer
    from meta_rules.training_run import TrainingRun

    bindings = [*bindings, f"MetaTrainer.seed = {seed}"]
    configuration.parse(files, bindings)
    meta_steps = max(1, round(budget / configuration.build(MetaTrainer).mean_task_steps()))
    configuration.parse(files, [*bindings, f"MetaTrainer.meta_steps = {meta_steps}"])
    run = configuration.build(TrainingRun, run_dir=os.devnull)
    if run.judge is None:
        raise UserError(f"{'+'.join(files)} has no judge; bind TrainingRun.judge.")
    trainer, trial = run.trainer, FewShotTrial(run.trainer.rule, run.judge, seed=0)
    marks = {int(step) for step in np.linspace(0, meta_steps, points + 1).round()}
    found, done, seconds = [], 0, 0.0

    def judge(step):
        accuracies = trial.accuracies(trainer.theta(), run.judge_steps, run.draws)
        means = {str(name): float(values.mean()) for name, values in accuracies.items()}
        found.append({"meta_steps": step, "task_steps": done, "seconds": seconds, "accuracy": means})

    def on_step(step, metrics, scalars):
        nonlocal done, seconds, since
        done, seconds = done + scalars["task_steps"], seconds + time.monotonic() - since
        if step in marks:
            judge(step)
        since = time.monotonic()

    judge(0)
    since = time.monotonic()
    try:
        trainer.train(on_step)
    except UserError as error:
        # What is left of the budget would not change theta any more.
        print(f"{error} Judged as it is from here on.", flush=True)
        for step in sorted(mark for mark in marks if mark > found[-1]["meta_steps"]):
            done = budget * step // meta_steps
            judge(step)
    names = {"rule": trainer.rule.rule_name, "estimator": trainer.estimator.estimator_name}
    return {"seed": seed, **names, "points": found}


def all_runs(configurations, bindings, seeds, budget, points, folder):
    """The runs of every configuration and seed: dict of configuration -> list; those in the folder are read, not run."""
    from meta_rules import configuration, estimators, rules, training_run  # noqa: F401  gin knows what is imported
    from meta_rules.saved_rules import write_atomically

    paths = {}
    for files in configurations:
        # All are read before the first one runs: a mistake in the last must not cost an hour.
        configuration.parse(files.split("+"), bindings)
        text = json.dumps([gin.config_str(), budget, points])
        paths[files] = f"{label(files)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}-seed{{}}.json"
    os.makedirs(os.path.join(folder, "runs"), exist_ok=True)
    found = {}
    # Seed by seed: whenever it is interrupted, all configurations have had nearly the same.
    for seed in seeds:
        for files in configurations:
            path = os.path.join(folder, "runs", paths[files].format(seed))
            if not os.path.exists(path):
                print(f"{label(files)}, seed {seed} ...", flush=True)
                run = meta_train(files.split("+"), bindings, seed, budget, points)
                write_atomically(path, (json.dumps(run, indent=2) + "\n").encode())
            with open(path) as file:
                found.setdefault(label(files), []).append(json.load(file))
    return found


def label(files):
    """Name of a configuration: its files without folder and ending."""
    return "+".join(os.path.splitext(os.path.basename(name))[0] for name in files.split("+"))


def spread(values):
    """Mean, and its standard error over seeds (0 of a single one)."""
    return np.mean(values), np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0


def applications(found):
    """Numbers of rule applications that any run was judged after, in order."""
    return sorted(
        {int(n) for runs in found.values() for n in runs[0]["points"][0]["accuracy"] if n not in ("raw", "0")}
    )


def table(found, budget, seeds):
    """The Markdown table: accuracy at the end of the budget, mean and standard error over seeds."""
    steps = applications(found)
    heads = ["configuration", "rule", "estimator", "meta-steps", "seconds"]
    heads += [f"accuracy after {n} applications" for n in steps]
    lines = [
        f"Probe accuracy after meta-training for {budget} task-steps; mean and standard error over "
        f"{len(seeds)} seed(s).",
        "",
        "| " + " | ".join(heads) + " |",
        "|" + " --- |" * len(heads),
    ]
    for name, runs in found.items():
        ends = [run["points"][-1] for run in runs]
        seconds = np.mean([end["seconds"] for end in ends])
        row = [name, runs[0]["rule"], runs[0]["estimator"], str(ends[0]["meta_steps"]), f"{seconds:.0f}"]
        for n in steps:
            values = [end["accuracy"][str(n)] for end in ends if str(n) in end["accuracy"]]
            row.append("{:.3f} ± {:.3f}".format(*spread(values)) if values else "")
        lines.append("| " + " | ".join(row) + " |")
    first = next(iter(found.values()))[0]["points"][0]["accuracy"]
    lines += [
        "",
        f"For comparison: raw inputs {first['raw']:.3f}, features of an untrained network {first['0']:.3f}.",
    ]
    return "\n".join(lines) + "\n"


def plot(found):
    """Figure of accuracy against task-steps, a panel for every number of applications."""
    steps = applications(found)
    figure = Figure(figsize=(5.2 * len(steps), 4.2), layout="constrained")
    panels = figure.subplots(1, len(steps), squeeze=False, sharey=True)[0]
    base = next(iter(found.values()))[0]["points"][0]["accuracy"]
    for panel, n in zip(panels, steps, strict=True):
        for name, runs in found.items():
            if str(n) not in runs[0]["points"][0]["accuracy"]:
                continue
            curves = np.array([[point["accuracy"][str(n)] for point in run["points"]] for run in runs])
            at = np.mean([[point["task_steps"] for point in run["points"]] for run in runs], axis=0)
            mean, error = np.transpose([spread(curves[:, i]) for i in range(curves.shape[1])])
            panel.plot(at, mean, marker="o", markersize=3, label=name)
            panel.fill_between(at, mean - error, mean + error, alpha=0.2)
        panel.axhline(base["raw"], color="grey", linestyle="--", linewidth=1, label="raw inputs")
        panel.axhline(base["0"], color="grey", linestyle=":", linewidth=1, label="untrained network")
        panel.set_title(f"after {n} applications")
        panel.set_xlabel("task-steps of meta-training")
    panels[0].set_ylabel("probe accuracy")
    panels[-1].legend(fontsize="small")
    return figure


def options():
    """What the command line takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    several = "A configuration: a gin file, or several joined by '+' of which later ones win; repeatable."
    parser.add_argument("--gin_file", action="append", default=[], help=several)
    parser.add_argument(
        "--gin_param", action="append", default=[], help="Gin binding for all configurations; repeatable."
    )
    parser.add_argument("--task_steps", type=int, default=20000, help="Budget of every run, in task-steps.")
    parser.add_argument("--seeds", default="0", help="Seeds of meta-training, separated by commas.")
    parser.add_argument(
        "--points", type=int, default=5, help="Judgements after the first, before any training."
    )
    parser.add_argument("--out_dir", default="comparison", help="Where table, plot and runs are written.")
    return parser


@exits_cleanly
def main():
    """Parses the command line, runs what is not there yet, writes table and plot."""
    given = options().parse_args()
    if not given.gin_file:
        raise UserError("Give --gin_file once for every configuration to compare.")
    if len({label(files) for files in given.gin_file}) < len(given.gin_file):
        raise UserError("Two configurations have the same name; rename one of the gin files.")
    if not all(seed.strip().isdigit() for seed in given.seeds.split(",")):
        raise UserError(f"--seeds must be whole numbers separated by commas, got {given.seeds!r}.")
    if given.task_steps < 1 or given.points < 1:
        raise UserError("--task_steps and --points must be at least 1.")
    seeds = [int(seed) for seed in given.seeds.split(",")]
    found = all_runs(given.gin_file, given.gin_param, seeds, given.task_steps, given.points, given.out_dir)
    text = table(found, given.task_steps, seeds)
    with open(os.path.join(given.out_dir, "comparison.md"), "w") as file:
        file.write(text)
    plot(found).savefig(os.path.join(given.out_dir, "comparison.png"), dpi=120)
    print(text)


if __name__ == "__main__":
    main()
