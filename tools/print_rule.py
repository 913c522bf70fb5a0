"""Prints the named coefficients of a saved rule, and draws them.

python tools/print_rule.py runs/genome/rule --plot=genome.png
"""

import os

import matplotlib
from absl import app, flags

from meta_rules.errors import UserError, exits_cleanly

_PLOT = flags.DEFINE_string(
    "plot", None, "Where to write a bar chart of the coefficients (.png, .pdf or .svg)."
)


def draw(coefficients, title, path):
    """A bar for every coefficient, one panel a table (`planes`, `planes_top`, ...), written to `path`."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    tables = {}
    for name, value in coefficients.items():
        table, _, short = name.rpartition("/")
        tables.setdefault(table or "steps and shares", []).append((short, value))
    figure, panels = pyplot.subplots(
        len(tables),
        figsize=(6.0, 0.24 * len(coefficients) + 0.5 * len(tables)),
        height_ratios=[len(rows) for rows in tables.values()],
        layout="constrained",
        squeeze=False,
    )
    for panel, (table, rows) in zip(panels[:, 0], tables.items(), strict=True):
        names, values = zip(*rows, strict=True)
        panel.barh(names, values, color=["tab:blue" if value >= 0 else "tab:red" for value in values])
        panel.axvline(0.0, color="black", linewidth=0.8)
        panel.invert_yaxis()
        panel.set_title(table, fontsize="medium", loc="left")
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


@exits_cleanly
def main(argv):
    """Parses flags, loads the rule, prints and draws."""
    if len(argv) != 2:
        raise UserError("Give one rule: the path of a saved rule, or the name of a registered one.")
    path = _PLOT.value
    if path and os.path.splitext(path)[1] not in (".png", ".pdf", ".svg"):
        raise UserError(f"--plot must end in .png, .pdf or .svg, got {path!r}.")
    if path and not os.path.isdir(os.path.dirname(path) or "."):
        raise UserError(f"--plot: there is no folder {os.path.dirname(path)!r}; make it first.")
    from meta_rules import rules, saved_rules  # noqa: F401  rules are known by being imported

    rule = saved_rules.resolve(argv[1])
    if not hasattr(rule, "coefficients"):
        raise UserError(f"Rule {rule.rule_name!r} has no named coefficients; those of 'genome' do.")
    coefficients = rule.coefficients()
    width = max(len(name) for name in coefficients)
    for name, value in coefficients.items():
        print(f"{name:<{width}}  {value:+.4f}")
    if path:
        draw(coefficients, f"{rule.rule_name}: {argv[1]}", path)
        print(f"Chart written to {path}")


if __name__ == "__main__":
    app.run(main)
