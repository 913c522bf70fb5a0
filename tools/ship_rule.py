"""Puts the rule of a finished run into the package: measures it, writes its card and its versioned files.

python tools/ship_rule.py runs/broad default --source=mnist --source=fashion_mnist
python tools/ship_rule.py runs/broad default --report=runs/report     # with the scores of a report of meta_rules.evaluate
"""

import argparse
import json
import os
import shutil

from meta_rules.console import quiet_import
from meta_rules.errors import UserError, exits_cleanly

#: How a rule is judged here, and in a report.
JUDGED = (
    "Test split, pixels permuted, 14x14, network 196-128-32, 10 labels a class, ridge probe with its penalty chosen on the "
    "labelled examples; 0 applications is the untrained network. "
)
REPORTED = (
    "The protocol of meta_rules.evaluate: 5,000 unlabelled examples of the training split, pixels permuted, at most 14x14, "
    "network of 128 and 32 units, 10 labels a class, ridge probe with its penalty chosen on validation examples, accuracy on "
    "the test split."
)
#: Applications after which a rule is judged.
STEPS = (0, 50, 500, 3000)


def score(rule, source, draws, steps):
    """Rows of scores on one source: 14x14, permuted, 196-128-32, 10 labels a class; the setting of the main judgement."""
    from meta_rules.evaluation.few_shot import FewShotTrial, result_rows
    from meta_rules.tasks.family import TaskFamily

    family = TaskFamily(
        sources=(source,), split="test", image_size=14, hidden=(128, 32), batch_size=128, support=10, query=40,
        separate_query=True,
    )  # fmt: skip
    rows = result_rows(FewShotTrial(rule, family).accuracies(rule.theta(), steps, draws), family)
    shown = os.path.basename(source).removesuffix(".npz")
    return [row | {"dataset": shown} for row in rows], family.origins


def reported(directory, method):
    """Rows of a report with 10 labels a class and the ridge probe: those of the method, called learned, and of features.

    Raises:
      UserError: the directory holds no report, or none of this method.
    """
    try:
        with open(os.path.join(directory, "results.json"), encoding="utf-8") as file:
            rows = json.load(file)
    except OSError as error:
        raise UserError(f"{directory} holds no results.json: give the directory of an evaluation.") from error
    rows = [row for row in rows if row["shots"] == 10 and row["probe"] == "ridge" and not row.get("error")]
    rows = [row for row in rows if row["method"] in (method, "untrained", "raw", "pca", "kmeans")]
    if method not in {row["method"] for row in rows}:
        raise UserError(
            f"{directory} has no rows of the method {method!r}; --reported_as says which is this rule."
        )
    learned = {"method": "learned"}
    rows = [row | learned if row["method"] == method else row for row in rows]
    shown = {
        row["dataset"]: os.path.basename(row["dataset"].split(":")[-1]).removesuffix(".npz") for row in rows
    }
    return [row | {"dataset": shown[row["dataset"]]} for row in rows]


def chosen_by(run_card):
    """How a run chose its rule, in words."""
    if "validation_accuracy" not in run_card:
        return "last of the run"
    accuracy, steps = run_card["validation_accuracy"], run_card["meta_steps"]
    return f"best of a run of {steps} meta-steps on tasks of meta-validation, accuracy {accuracy:.3f}"


def limits(rows):
    """What the scores themselves say against the rule, in sentences."""
    found = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        mine = [row for row in rows if row["dataset"] == dataset]
        learned = [row for row in mine if row["method"] == "learned"]
        best, last = max(row["accuracy_mean"] for row in learned), learned[-1]
        raw = next(row["accuracy_mean"] for row in mine if row["method"] == "raw")
        if best < raw + 0.02:
            found.append(f"{dataset}: its best, {best:.3f}, is not clearly above raw inputs, {raw:.3f}.")
        for rival in ("pca", "kmeans"):
            theirs = [row["accuracy_mean"] for row in mine if row["method"] == rival]
            if theirs and best < theirs[0]:
                found.append(f"{dataset}: its best, {best:.3f}, is below {rival}, {theirs[0]:.3f}.")
        if best - last["accuracy_mean"] > 0.01:
            found.append(
                f"{dataset}: it loses {best - last['accuracy_mean']:.3f} of its best by {last['inner_steps']} applications."
            )
    return found


def card_text(card):
    """The card for reading, in Markdown."""
    lines = [f"# {card['name']}, version {card['version']}", "", card["about"], ""]
    for key in ("rule", "parameters", "meta_steps", "task_steps", "hours", "chosen_by", "licence", "package"):
        lines.append(f"- {key.replace('_', ' ')}: {card[key]}")
    lines += [
        "",
        "## Meta-trained on",
        "",
        *(f"- {origin}" for origin in card["trained_on"] or ["nothing: set by hand"]),
    ]
    lines += ["", f"Never seen: {card['never_seen']}. The whole configuration is in config.gin."]
    lines += ["", "## Scores", "", card["setting"], ""]
    lines += [
        "| data set | method | applications | features | accuracy | trials |",
        "|---|---|---|---|---|---|",
    ]
    for row in card["scores"]:
        lines.append(
            f"| {row['dataset']} | {row['method']} | {row['inner_steps']} | {row['features']} | "
            f"{row['accuracy_mean']:.3f} ± {row['accuracy_sem']:.3f} | {row['trials']} |"
        )
    lines += ["", "## Limits", "", *(f"- {limit}" for limit in card["limits"])]
    return "\n".join(lines) + "\n"


@exits_cleanly
def main(arguments=None):
    """Parses the command line, measures and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", help="a run of meta_rules.train; its rule/ and config.gin are taken")
    parser.add_argument("name", help="name of the rule that ships: lower-case letters, digits and _")
    parser.add_argument("--version", type=int, help="the next by default; an existing one is replaced")
    parser.add_argument("--source", action="append", help="to judge on; repeatable; mnist by default")
    parser.add_argument(
        "--as_judged", action="store_true", help="take the scores of the run's results.json, measure nothing"
    )
    parser.add_argument(
        "--report", help="take the scores of this directory of meta_rules.evaluate, measure nothing"
    )
    parser.add_argument(
        "--reported_as", default="learned", help="method of the report that is this rule, for --report"
    )
    parser.add_argument("--draws", type=int, default=20, help="tasks in the judgement")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=STEPS, help="applications, increasing, 0 first"
    )
    parser.add_argument("--tasks", type=int, default=8, help="tasks a meta-step of the run")
    parser.add_argument("--window", type=float, default=20, help="mean applications a meta-step of the run")
    parser.add_argument("--hours", type=float, help="of meta-training; by the files' times if left out")
    parser.add_argument(
        "--chosen_by", help="how this rule was chosen, for the card; the run's own way if left out"
    )
    parser.add_argument("--about", default="", help="a sentence for the card")
    parser.add_argument("--limit", action="append", default=[], help="a sentence for the card; repeatable")
    parser.add_argument("--never_seen", default="handwritten digits, clothing", help="for the card")
    options = parser.parse_args(arguments)

    with quiet_import():
        from meta_rules import pretrained, saved_rules
        from meta_rules.version import __version__

    source_rule, config = (os.path.join(options.run_dir, part) for part in ("rule", "config.gin"))
    if not os.path.isfile(config):
        raise UserError(f"{options.run_dir} holds no config.gin: give the directory of a run.")
    rule = saved_rules.load_rule(source_rule)
    run_card = saved_rules.read_rule(source_rule)[0]["card"]
    hours = options.hours
    if hours is None:
        hours = (
            os.path.getmtime(os.path.join(source_rule, saved_rules.FILE)) - os.path.getmtime(config)
        ) / 3600
    versions = pretrained.versions().get(options.name, [])
    version = options.version or (versions[-1] + 1 if versions else 1)
    folder = os.path.join(pretrained.root(), f"{options.name}-{version}")
    pretrained.check_folder(os.path.basename(folder))

    rows, origins, setting = [], [], JUDGED
    if options.report:
        rows, setting = reported(options.report, options.reported_as), REPORTED
    elif options.as_judged:
        try:
            with open(os.path.join(options.run_dir, "results.json"), encoding="utf-8") as file:
                rows = json.load(file)
        except OSError as error:
            raise UserError(f"{options.run_dir} holds no results.json: the run is not judged yet.") from error
    for source in [] if rows else options.source or ["mnist"]:
        found, origin = score(rule, source, options.draws, tuple(options.steps))
        rows, origins = rows + found, origins + origin
    steps = run_card["meta_steps"]
    card = {
        "name": options.name,
        "version": version,
        "about": options.about or f"A meta-trained rule of the kind '{rule.rule_name}'.",
        "rule": rule.rule_name,
        "parameters": sum(int(value.shape.num_elements()) for value in rule.theta().values()),
        "meta_steps": run_card.get("meta_step_of_best", steps),
        "task_steps": round(run_card.get("meta_step_of_best", steps) * options.tasks * options.window),
        "hours": round(hours, 2),
        "chosen_by": options.chosen_by or chosen_by(run_card),
        "trained_on": run_card["trained_on"],
        **{name: run_card[name] for name in ("horizon", "arrangement") if name in run_card},
        "never_seen": options.never_seen,
        "setting": setting + "; ".join(
            origin.split(":", 1)[-1].strip() for origin in origins if "/" not in origin
        ),
        "scores": rows,
        "limits": limits(rows) + options.limit or ["None that these scores show."],
        "licence": "Apache-2.0",
        "package": __version__,
    }  # fmt: skip
    saved_rules.save_rule(folder, rule, card)
    saved_rules.write_atomically(os.path.join(folder, "CARD.md"), card_text(card).encode())
    shutil.copyfile(config, os.path.join(folder, "config.gin"))
    print(json.dumps(card["scores"], indent=1))
    print(f"Wrote {folder}")


if __name__ == "__main__":
    main()
