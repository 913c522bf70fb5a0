"""The plots of an evaluation."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

LEARNED, LABELS, HAND, OTHER = "#b2182b", "#4d9221", "#e08214", "#4575b4"
#: Of the methods of a sweep besides the rule: none is like the rule's own.
SERIES = ("#4575b4", "#e08214", "#1a9850", "#762a83", "#666666", "#a6761d")
CLASSES = matplotlib.colormaps["tab10"]


def kind_colour(method):
    """Colour of a method: the learned rule, methods that need labels to learn, other rules, and the rest."""
    if method.startswith("learned"):
        return LEARNED
    if method.startswith("rule:"):
        return HAND
    labels = ("supervised", "label_propagation", "label_spreading", "semi_supervised")
    return LABELS if method.partition(":")[0] in labels else OTHER


def shown(method):
    """A method's name as plots and tables show it; of a path the last two parts."""
    kind, _, argument = method.partition(":")
    argument = "/".join(argument.rstrip("/").split("/")[-2:])
    if kind == "rule" and argument:
        return argument.replace("_", " ")
    return kind.replace("_", " ") + (f" ({argument})" if argument else "")


def label(row):
    """Name of a row: the method, and where there are several stages the applications."""
    steps = f", {row['inner_steps']} applications" if row["staged"] else ""
    return shown(row["method"]) + steps


def fields_canvas(fields, shape, columns):
    """Receptive fields as one picture, each scaled to itself.

    Args:
      fields: `[pixels, units]`, in the order of pixels.
      shape: `(height, width, channels)`.
      columns: fields in a row.

    Returns:
      `[rows * (height + 1) - 1, columns * (width + 1) - 1]`, not a number between fields.
    """
    height, width, _ = shape
    rows = -(-fields.shape[1] // columns)
    canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for unit in range(fields.shape[1]):
        top, left = (unit // columns) * (height + 1), (unit % columns) * (width + 1)
        picture = fields[:, unit].reshape(shape).mean(axis=-1)
        canvas[top : top + height, left : left + width] = picture / (np.abs(picture).max() + 1e-12)
    return canvas


def order(rows, dataset, shots):
    """Bars of the accuracy of every method, the best on top, with standard errors."""
    rows = sorted(rows, key=lambda row: row["accuracy_mean"])
    figure = Figure(figsize=(8, 0.9 + 0.3 * len(rows)), layout="constrained")
    axis = figure.subplots()
    means = [row["accuracy_mean"] for row in rows]
    errors = [row["accuracy_sem"] or 0.0 for row in rows]
    axis.barh(
        range(len(rows)), means, xerr=errors, height=0.7, color=[kind_colour(row["method"]) for row in rows]
    )
    for i, (mean, error) in enumerate(zip(means, errors, strict=True)):
        axis.text(mean + error + 0.008, i, f"{mean:.3f} ± {error:.3f}", va="center", fontsize=8.5)
    axis.set_yticks(range(len(rows)), [f"{label(row)}  ({row['features']})" for row in rows], fontsize=9)
    axis.set_xlim(0, max(means) + 0.2)
    axis.set_ylim(-0.7, len(rows) - 0.3)
    axis.set_xlabel("accuracy on test examples (in brackets: features)")
    axis.set_title(
        f"{dataset}, {shots if shots == 'all' else f'{shots} labels a class' if shots > 1 else '1 label a class'}"
    )
    handles = [matplotlib.patches.Patch(color=c) for c in (LEARNED, HAND, OTHER, LABELS)]
    names = [
        "the rule",
        "hand-designed rules",
        "features without labels",
        "classifiers that learn from labels",
    ]
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    _tidy(axis)
    return figure


def by_shots(series, dataset, shots):
    """Lines of accuracy against labels a class.

    Args:
      series: dict of label -> dict of shots -> row.
      dataset: for the title.
      shots: the values, in order.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    axis = figure.subplots()
    colours = matplotlib.colormaps["tab20"]
    ranked = sorted(
        series, key=lambda name: -np.mean([row["accuracy_mean"] for row in series[name].values()])
    )
    for i, name in enumerate(ranked):
        found = series[name]
        at = [j for j, value in enumerate(shots) if value in found]
        rows = [found[shots[j]] for j in at]
        learned = rows[0]["method"] == "learned"
        axis.errorbar(
            at,
            [row["accuracy_mean"] for row in rows],
            [row["accuracy_sem"] or 0.0 for row in rows],
            marker="o" if learned else ".",
            lw=2.5 if learned else 1.2,
            color=LEARNED if learned else colours((i * 2 + i // 10) % 20),
            label=name,
            zorder=3 if learned else 2,
        )
    axis.set_xticks(range(len(shots)), [str(value) for value in shots])
    axis.set_xlabel("labels a class")
    axis.set_ylabel("accuracy on test examples")
    axis.set_title(f"{dataset}: accuracy by number of labels")
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    _tidy(axis)
    return figure


def curve(found, dataset, horizon, shots, lines):
    """Accuracy and meta-loss against rule applications.

    Args:
      found: dict of method -> what `Curves.compute` gives.
      dataset: for the title.
      horizon: applications where meta-training stopped.
      shots: labels a class of the probe.
      lines: dict of name -> accuracy, drawn as level lines for comparison.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for name, content in found.items():
        at = np.asarray(content["points"])
        for axis, key in zip(axes, ("accuracy", "meta_loss"), strict=True):
            values = np.asarray(content[key])
            error = values.std(axis=1, ddof=1) / values.shape[1] ** 0.5 if values.shape[1] > 1 else 0.0
            colour = LEARNED if name == "learned" else None
            axis.errorbar(at, values.mean(axis=1), error, marker="o", ms=4, color=colour, label=shown(name))
    for (name, level), style in zip(lines.items(), ("--", ":", "-.", (0, (1, 3))), strict=False):
        axes[0].axhline(level, color="#555555", ls=style, lw=1, label=name)
    first = min(point for content in found.values() for point in content["points"] if point > 0)
    for axis, title in zip(axes, (f"accuracy, {shots} labels a class", "meta-loss"), strict=True):
        axis.set_xscale("symlog", linthresh=first)
        if horizon <= max(point for content in found.values() for point in content["points"]):
            axis.axvline(horizon, color="#999999", lw=0.8)
            place = {"transform": axis.get_xaxis_transform(), "ha": "right", "va": "top"}
            axis.text(horizon, 0.98, "end of lives in meta-training ", fontsize=7, color="#555555", **place)
        axis.set_xlabel("applications of the rule")
        axis.set_title(f"{dataset}: {title}")
        axis.set_xlim(left=0)
        _tidy(axis)
    axes[0].legend(fontsize=8, frameon=False, loc="lower center", ncols=2)
    return figure


def sweep(series, values, axis_label, title):
    """Accuracy against the values of a sweep.

    Args:
      series: dict of label -> dict of value -> row.
      values: all values, in order.
      axis_label, title: texts.
    """
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axis = figure.subplots()
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    colours = iter(SERIES * (1 + len(series) // len(SERIES)))
    for number, (name, found) in enumerate(series.items()):
        there = [value for value in values if value in found]
        if not there:
            continue
        # Beside each other where the values are no numbers: lines would mean nothing, and points would cover one another.
        aside = 0.09 * (number - (len(series) - 1) / 2)
        at = there if numbers else [values.index(value) + aside for value in there]
        rows = [found[value] for value in there]
        learned = rows[0]["method"] == "learned"
        axis.errorbar(
            at,
            [row["accuracy_mean"] for row in rows],
            [row["accuracy_sem"] or 0.0 for row in rows],
            marker="o",
            ms=7 if learned else 5,
            ls="-" if numbers else "none",
            capsize=3,
            color=LEARNED if learned else next(colours),
            label=name,
            zorder=3 if learned else 2,
        )
    if numbers:
        if len(values) > 1 and max(values) > 8 * min(values) > 0:
            axis.set_xscale("log")
        axis.set_xticks(list(values), [f"{value:,}" for value in values])
        axis.set_xticks([], minor=True)
    else:
        words = [
            {True: "yes", False: "no"}[value] if isinstance(value, bool) else shown(str(value))
            for value in values
        ]
        axis.set_xticks(range(len(values)), words, rotation=20 if len(values) > 4 else 0)
        axis.set_xlim(-0.5, len(values) - 0.5)
    axis.set_xlabel(axis_label)
    axis.set_ylabel("accuracy on test examples")
    axis.set_title(title)
    figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    _tidy(axis)
    return figure


def receptive_fields(content, dataset):
    """First-layer receptive fields before and after, from what `views.compute` gives."""
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    axes = figure.subplots(1, 2)
    titles = ("before", f"after {content['applications']} applications")
    for axis, key, title in zip(axes, ("before", "after"), titles, strict=True):
        fields = np.asarray(content[key])
        canvas = fields_canvas(fields, content["shape"], int(np.ceil(fields.shape[1] ** 0.5)))
        axis.imshow(canvas, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        axis.set_axis_off()
        axis.set_title(f"{dataset}: receptive fields {title}", fontsize=11)
    return figure


def feature_map(content, dataset):
    """The test examples in two dimensions, by class: inputs, untrained and learned features."""
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    labels = np.asarray(content["labels"])
    handles = []
    for axis, (name, points) in zip(figure.subplots(1, 3), content["points"].items(), strict=True):
        points = np.asarray(points)
        handles = []
        for number in np.unique(labels):
            chosen = points[labels == number]
            handles.append(axis.scatter(chosen[:, 0], chosen[:, 1], s=9, color=CLASSES(number % 10)))
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title(
            {"inputs": f"{dataset}: inputs", "untrained": "untrained features"}.get(name, "learned features")
        )
    names = [content["class_names"][number] for number in np.unique(labels)]
    if len(names) <= 20:
        figure.legend(handles, names, loc="outside right center", frameon=False, markerscale=2)
    return figure


def _tidy(axis):
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, lw=0.6)
    axis.set_axisbelow(True)
