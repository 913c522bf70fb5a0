"""Draws what a rule does to a base network: receptive fields before and after, and probe accuracy on the way.

python tools/draw_learning.py --rule=runs/mnist/rule --output=docs/learning.png
"""

import argparse

import numpy as np
from matplotlib.figure import Figure

from meta_rules.console import quiet_import
from meta_rules.errors import exits_cleanly

with quiet_import():
    from meta_rules import saved_rules
    from meta_rules.evaluation.few_shot import FewShotTrial
    from meta_rules.evaluation.figures import fields_canvas
    from meta_rules.tasks.family import TaskFamily


def fields(kernel, permutation, shape):
    """Receptive fields of the first 36 units in pixel order, as one picture."""
    in_order = np.empty_like(kernel)
    in_order[permutation] = kernel
    return fields_canvas(in_order[:, :36], shape, columns=6)


@exits_cleanly
def main(arguments=None):
    """Parses the command line and draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rule", required=True, help="name or path of a rule")
    parser.add_argument("--output", required=True, metavar="FILE.png", help="the picture to write")
    parser.add_argument("--source", default="mnist", help="source of the pictures")
    parser.add_argument("--size", type=int, default=14, help="side of the pictures")
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 32], help="sizes of the layers")
    parser.add_argument("--draws", type=int, default=8, help="networks averaged in the curve")
    options = parser.parse_args(arguments)

    rule = saved_rules.resolve(options.rule)
    family = TaskFamily(
        sources=(options.source,), split="test", image_size=options.size, hidden=tuple(options.hidden), query=40,
        separate_query=True,
    )  # fmt: skip
    trial = FewShotTrial(rule, family, seed=1)
    points = (0, 5, 10, 20, 50, 100, 200, 500)
    found = trial.accuracies(rule.theta(), points, options.draws)
    before, after, permutation = trial.first_kernels(rule.theta(), 200)

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=[1, 1, 1.15])
    for axis, kernel, title in ((axes[0], before, "before"), (axes[1], after, "after 200 applications")):
        shown = fields(kernel, permutation, family.shape)
        axis.imshow(shown, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        axis.set_axis_off()
        axis.set_title(f"receptive fields {title}")
    learned = [found[steps] for steps in points]
    axes[2].errorbar(
        np.maximum(points, 2),
        [values.mean() for values in learned],
        [values.std(ddof=1) / len(values) ** 0.5 for values in learned],
        marker="o",
        color="#b2182b",
        label=f"{family.hidden[-1]} features, learned without labels",
    )
    axes[2].axhline(found["raw"].mean(), color="#555555", ls="--", label=f"{family.inputs} raw pixels")
    axes[2].set_xscale("log")
    axes[2].set_xticks([2, 5, 10, 20, 50, 100, 200, 500], ["0", 5, 10, 20, 50, 100, 200, 500], minor=False)
    axes[2].set_xticks([], minor=True)
    axes[2].set_xlabel("applications of the rule")
    axes[2].set_ylabel("accuracy, 10 labels a class")
    axes[2].set_title(f"{options.source}, pixels permuted, never seen before")
    axes[2].legend(loc="lower right", frameon=False)
    axes[2].spines[["top", "right"]].set_visible(False)
    figure.savefig(options.output, dpi=110)
    print(f"Wrote {options.output}")


if __name__ == "__main__":
    main()
