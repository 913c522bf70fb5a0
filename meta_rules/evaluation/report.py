"""What an evaluation leaves behind: results.json, tables in Markdown, plots, TensorBoard events and one page of HTML."""

import base64
import dataclasses
import io
import json
import os
import platform
import shutil
from importlib import metadata, resources
from typing import NamedTuple

import jinja2
import numpy as np

from meta_rules import configuration, saved_rules, summaries
from meta_rules.evaluation import comparison, figures
from meta_rules.version import __version__

PACKAGES = ("tensorflow", "keras", "scikit-learn", "numpy", "matplotlib")


class Plot(NamedTuple):
    """A plot of the report.

    Attributes:
      name: of its files, and in TensorBoard.
      figure: of matplotlib.
      text: the alternative text.
      vector: whether the page shows it as SVG.
    """

    name: str
    figure: object
    text: str
    vector: bool = True


class Table(NamedTuple):
    """A table: title, heads, and rows of texts; `strong` are the numbers of the rows to stress."""

    title: str
    heads: tuple
    rows: list
    strong: tuple = ()


class Section(NamedTuple):
    """A part of the report: title, a sentence on what is to be seen, tables and plots."""

    title: str
    lead: str
    tables: list
    plots: list


def write(evaluation, outcomes, seconds):
    """Writes everything into the directory of the evaluation.

    Args:
      evaluation: an `Evaluation`.
      outcomes: list of `Outcome`.
      seconds: wall time of this call.

    Returns:
      The rows of results.json.
    """
    rows = all_rows(outcomes, evaluation)
    sections = [_dataset(evaluation, name, rows, outcomes) for name in evaluation.datasets]
    sections += [_sweep(number, sweep, rows) for number, sweep in enumerate(evaluation.sweeps)]
    sections = [section for section in sections if section.tables or section.plots]
    folder = evaluation.output
    results = [{key: value for key, value in row.items() if key != "accuracies"} for row in rows]
    _write(folder, "results.json", json.dumps(results, indent=2) + "\n")
    facts = about(evaluation, seconds)
    pictures = _save_plots(folder, [plot for section in sections for plot in section.plots])
    _write(folder, "config.gin", configuration.operative())
    _write(folder, "report.md", _markdown(sections, facts))
    _write(folder, "report.html", _page(sections, facts, pictures))
    _events(folder, sections, outcomes)
    return results


def all_rows(outcomes, evaluation):
    """Rows of the comparisons and sweeps; those of a sweep say `sweep`, `setting` and `value`."""
    found = []
    for job, content, error in outcomes:
        if job.kind not in ("comparison", "sweep"):
            if error is not None:
                found.append(comparison.error_row(job.method, job.dataset, error) | {"part": job.kind})
            continue
        name = job.method
        rows = (
            [comparison.error_row(name, job.dataset, error)]
            if error
            else comparison.rows(name, job.dataset, content)
        )
        extra = {"part": job.kind}
        if job.sweep:
            number, value = job.sweep
            extra |= {"sweep": number, "setting": evaluation.sweeps[number].vary, "value": value}
        found += [row | extra for row in rows]
    return found


def about(evaluation, seconds):
    """How the figures were made, for the reader: list of pairs of texts."""
    rule = evaluation.rule
    card = saved_rules.card_of(evaluation.rule_name)
    rule_text = f"{evaluation.rule_name} ({rule.rule_name}, {json.dumps(rule.rule_config())})"
    facts = [("rule", rule_text if card else f"{rule_text}, as it starts, not meta-trained")]
    facts += [(f"the rule's {key.replace('_', ' ')}", _text(value)) for key, value in card.items()]
    facts += [("data sets", ", ".join(evaluation.datasets))]
    protocol = dataclasses.asdict(evaluation.protocol)
    facts += [
        ("protocol", ", ".join(f"{key.replace('_', ' ')} {_text(value)}" for key, value in protocol.items()))
    ]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    facts += [
        ("versions", f"meta_rules {__version__}, Python {platform.python_version()}, {versions}"),
        ("time of the last call", f"{seconds:.0f} s on {os.cpu_count()} cores"),
        ("configuration", configuration.operative()),
    ]
    return facts


def _text(value):
    """A value of a card or a setting in words."""
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_text(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ("; " if any(isinstance(part, dict) for part in value) else ", ").join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _staged(rows):
    """Rows with `staged`: whether their method has several numbers of applications."""
    steps = {}
    for row in rows:
        steps.setdefault(row["method"], set()).add(row["inner_steps"])
    return [row | {"staged": len(steps[row["method"]]) > 1} for row in rows]


def _last(rows):
    """Of every method the rows of its last number of applications only."""
    last = {}
    for row in rows:
        last[row["method"]] = max(last.get(row["method"], 0), row["inner_steps"])
    return [row for row in rows if row["inner_steps"] == last[row["method"]]]


def _dataset(evaluation, dataset, rows, outcomes):
    mine = [row for row in rows if row["dataset"] == dataset and row["part"] == "comparison"]
    good, failed = _staged([row for row in mine if not row["error"]]), [row for row in mine if row["error"]]
    tables, plots = [], []
    shots = [value for value in evaluation.protocol.shots]
    for i, probe in enumerate(evaluation.probes):
        chosen = [row for row in good if row["probe"] in (probe, "own")]
        if chosen:
            tables.append(_table(f"Accuracy, {_probe_name(probe)}", chosen, shots, failed if not i else []))
    first = (
        [row for row in good if row["probe"] in (evaluation.probes[0], "own")] if evaluation.probes else []
    )
    wanted = evaluation.shown_shots if evaluation.shown_shots in shots else shots[-1]
    slug = _slug(dataset)
    at = [row for row in first if row["shots"] == wanted]
    if at:
        best = max(at, key=lambda row: row["accuracy_mean"])
        tables.insert(0, _order_table(at, wanted))
        plots.append(
            Plot(
                f"{slug}-order",
                figures.order(at, dataset, wanted),
                f"Bars: accuracy of {len(at)} methods on {dataset} with {wanted} labels a class; the best is "
                f"{figures.label(best)} with {best['accuracy_mean']:.3f}.",
            )
        )
        series = {}
        for row in _last(first):
            series.setdefault(figures.label(row | {"staged": False}), {})[row["shots"]] = row
        plots.append(
            Plot(
                f"{slug}-shots",
                figures.by_shots(series, dataset, shots),
                f"Lines: accuracy against labels a class on {dataset}.",
            )
        )
    lines = {
        figures.shown(row["method"]): row["accuracy_mean"] for row in at if row["method"] in ("raw", "pca")
    }
    plots += _curve(evaluation, dataset, outcomes, lines)
    for job, content, _ in outcomes:
        if job.kind == "view" and job.dataset == dataset and content:
            plots += _views(content, dataset, slug)
    kinds = {job.kind for job, content, _ in outcomes if job.dataset == dataset and content}
    lead = "Every method sees the same examples, permutations and labels." if "comparison" in kinds else ""
    return Section(dataset, lead, tables, plots)


def _curve(evaluation, dataset, outcomes, lines):
    found = {
        job.method: content
        for job, content, _ in outcomes
        if job.kind == "curve" and job.dataset == dataset and content
    }
    if not found:
        return []
    curves = evaluation.curves
    end = {name: np.mean(content["accuracy"][-1]) for name, content in found.items()}
    said = ", ".join(f"{figures.shown(name)} {value:.3f}" for name, value in end.items())
    return [
        Plot(
            f"{_slug(dataset)}-curve",
            figures.curve(found, dataset, curves.horizon, curves.shots, lines),
            f"Two plots against rule applications on {dataset}: accuracy and meta-loss. Accuracy after {curves.points[-1]} "
            f"applications: {said}.",
        )
    ]


def _views(content, dataset, slug):
    plots = []
    if content["before"] is not None:
        plots.append(
            Plot(
                f"{slug}-receptive-fields",
                figures.receptive_fields(content, dataset),
                f"First-layer receptive fields before and after {content['applications']} applications on "
                f"{dataset}, pixels put back in order.",
                vector=False,
            )
        )
    plots.append(
        Plot(
            f"{slug}-features",
            figures.feature_map(content, dataset),
            f"Test examples of {dataset} in two dimensions (t-SNE), coloured by class: inputs, untrained and learned features.",
            vector=False,
        )
    )
    return plots


def _sweep(number, sweep, rows):
    mine = [row for row in rows if row.get("sweep") == number]
    shots = [row["shots"] for row in mine if not row["error"]]
    wanted = 10 if 10 in shots else (shots or [None])[-1]
    datasets = list(dict.fromkeys(row["dataset"] for row in mine)) if sweep.vary != "dataset" else [None]
    tables, plots = [], []
    for dataset in datasets:
        there = [row for row in mine if dataset in (None, row["dataset"])]
        series = {}
        for row in there:
            if not row["error"] and row["shots"] == wanted:
                series.setdefault(figures.shown(row["method"]), {})[row["value"]] = row
        failed = {(row["method"], row["value"]): row["error"] for row in there if row["error"]}
        names = list(dict.fromkeys(row["method"] for row in there))
        cells = [
            [{True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)]
            + [
                _entry(series.get(figures.shown(name), {}).get(value), failed.get((name, value)))
                for name in names
            ]
            for value in sweep.values
        ]
        where = f" on {dataset}" if dataset else ""
        title = f"By {sweep.axis}{where}: accuracy, {wanted} labels a class"
        tables.append(Table(title, (sweep.axis, *map(figures.shown, names)), cells))
        if series:
            plots.append(
                Plot(
                    f"sweep-{number}-{sweep.vary}" + (f"-{_slug(dataset)}" if dataset else ""),
                    figures.sweep(series, list(sweep.values), sweep.axis, title),
                    f"Accuracy by {sweep.axis}{where} for {', '.join(series)}, from {sweep.values[0]} to {sweep.values[-1]}.",
                )
            )
    return Section(
        f"Sweep: {sweep.axis}", "One setting varies; everything else is as in the protocol.", tables, plots
    )


def _entry(row, error=None):
    if error:
        return f"failed: {error}"
    if row is None:
        return "–"
    error = f" ± {row['accuracy_sem']:.3f}" if row["accuracy_sem"] is not None else ""
    return f"{row['accuracy_mean']:.3f}{error}"


def _probe_name(probe):
    return {"ridge": "ridge probe", "logistic": "logistic regression", "knn": "nearest neighbours"}.get(
        probe, probe
    )


def _table(title, rows, shots, failed):
    heads = (
        "method",
        "features",
        "applications or steps",
        *(f"{value} label{'' if value == 1 else 's'}" for value in shots),
        "s a draw",
        "unlabelled",
    )
    groups = {}
    for row in rows:
        groups.setdefault((row["method"], row["inner_steps"]), {})[row["shots"]] = row
    wanted = shots[-1] if 10 not in shots else 10
    mean = lambda group: max((group[s]["accuracy_mean"] for s in (wanted,) if s in group), default=0.0)  # noqa: E731
    ranked = sorted(groups.items(), key=lambda item: -mean(item[1]))
    lines = []
    for (method, steps), group in ranked:
        one = next(iter(group.values()))
        lines.append(
            [figures.shown(method), str(one["features"]), str(steps or "")]
            + [_entry(group.get(value)) for value in shots]
            + [f"{one['seconds']:.2f}", f"{one['unlabelled']:,}"]
        )
    lines += [
        [figures.shown(row["method"]), "", f"failed: {row['error']}"] + [""] * (len(heads) - 3)
        for row in failed
    ]
    strong = tuple(i for i, ((method, _), _) in enumerate(ranked) if method == "learned")
    return Table(title, heads, lines, strong)


def _order_table(rows, shots):
    """The order of methods, with the difference to the rule on the same draws."""
    learned = [row for row in rows if row["method"] == "learned"]
    base = max(learned, key=lambda row: row["inner_steps"]) if learned else None
    ranked = sorted(rows, key=lambda row: -row["accuracy_mean"])
    heads = ("method", "features", "accuracy") + (("difference to the rule, draw by draw",) if base else ())
    lines, strong = [], []
    for i, row in enumerate(ranked):
        if row["method"] == "learned":
            strong.append(i)
        line = [figures.label(row), str(row["features"]), _entry(row)]
        if base:
            gap = np.asarray(row["accuracies"]) - np.asarray(base["accuracies"])
            spread = f" ± {gap.std(ddof=1) / len(gap) ** 0.5:.3f}" if len(gap) > 1 else ""
            line.append("" if row is base else f"{gap.mean():+.3f}{spread}")
        lines.append(line)
    return Table(f"Order of the methods, {shots} labels a class", heads, lines, tuple(strong))


def _slug(name):
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-")[-60:]


def _write(folder, name, text):
    saved_rules.write_atomically(os.path.join(folder, name), text.encode())


def _save_plots(folder, plots):
    """Writes every plot as PNG and SVG; dict of name -> data address of the one that the page shows."""
    os.makedirs(os.path.join(folder, "plots"), exist_ok=True)
    shown = {}
    for plot in plots:
        for kind in ("png", "svg"):
            buffer = io.BytesIO()
            # No date, and identifiers that do not change: the same figures give the same file.
            plot.figure.savefig(
                buffer, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else None
            )
            saved_rules.write_atomically(
                os.path.join(folder, "plots", f"{plot.name}.{kind}"), buffer.getvalue()
            )
            if kind == ("svg" if plot.vector else "png"):
                mime = "image/svg+xml" if plot.vector else "image/png"
                shown[plot.name] = f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return shown


def _markdown(sections, facts):
    lines = ["# Evaluation", ""]
    for section in sections:
        lines += [f"## {section.title}", "", section.lead, ""]
        for table in section.tables:
            lines += [f"### {table.title}", "", markdown_table(table), ""]
        for plot in section.plots:
            lines += [f"![{plot.text}](plots/{plot.name}.png)", ""]
    lines += ["## How it was made", ""]
    lines += [f"- {name}: {value}" for name, value in facts if name != "configuration"]
    return "\n".join(lines) + "\n"


def markdown_table(table):
    """The Markdown of a `Table`; stressed rows in bold."""
    lines = ["| " + " | ".join(table.heads) + " |", "|" + " --- |" * len(table.heads)]
    for i, row in enumerate(table.rows):
        texts = [text.replace("|", "\\|") for text in row]
        if i in table.strong:
            texts = [f"**{text}**" if text else "" for text in texts]
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines)


def _page(sections, facts, pictures):
    source = resources.files("meta_rules.evaluation").joinpath("report.html.jinja").read_text()
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    return template.render(sections=sections, facts=facts, pictures=pictures, version=__version__)


def _events(folder, sections, outcomes):
    """The same curves and plots for TensorBoard; those of an earlier call are replaced."""
    where = os.path.join(folder, "events")
    shutil.rmtree(where, ignore_errors=True)
    writer = summaries.RunSummaries(where, configuration.operative())
    for job, content, _ in outcomes:
        if job.kind == "curve" and content:
            for i, steps in enumerate(content["points"]):
                for key in ("accuracy", "meta_loss"):
                    name = f"{_slug(job.dataset)}/{_slug(job.method)}_{key}"
                    writer.scalars(steps, {name: float(np.mean(content[key][i]))})
    for section in sections:
        for plot in section.plots:
            writer.image(0, plot.name, plot.figure)
    writer.close()
