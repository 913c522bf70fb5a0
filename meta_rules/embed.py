"""Learns features of your own rows without labels: `python -m meta_rules.embed --input=rows.npy --output=features.npz`."""

import argparse
import io
import os

from meta_rules.compiler import compile_quickly
from meta_rules.console import quiet_import
from meta_rules.errors import UserError, exits_cleanly


def sizes(text):
    """Argument type: `256,64` as a tuple of positive integers."""
    found = tuple(int(size) for size in text.split(","))
    if min(found) < 1:
        raise ValueError(text)
    return found


def output_file(path, ending):
    """Refuses a path to write that does not end as it should, or lies in no folder.

    Raises:
      UserError: either.
    """
    if not path.endswith(ending) or not os.path.isdir(os.path.dirname(path) or "."):
        raise UserError(
            f"The output must be a file that ends in {ending}, in a folder that exists; got {path!r}."
        )


def add_network_arguments(parser):
    """What `embed` and `export` both ask."""
    parser.add_argument(
        "--rule", default="pretrained", help="a shipped rule, the path of a saved one, or a registered name"
    )
    parser.add_argument(
        "--layer_sizes",
        type=sizes,
        default=(128, 32),
        help="units of the layers; the last is the number of features",
    )
    parser.add_argument("--activation", default="relu", help="of every layer but a linear top")
    parser.add_argument("--batch_size", type=int, default=256, help="rows a rule application")


@exits_cleanly
def main(arguments=None):
    """Parses the command line, learns from the first part of the input and writes the features of all parts."""
    parser = argparse.ArgumentParser(prog="python -m meta_rules.embed", description=__doc__)
    parser.add_argument(
        "--input",
        required=True,
        help="an .npy, .npz or .csv file, or a source: digits, a TensorFlow Datasets name ...",
    )
    parser.add_argument(
        "--output", required=True, help="the .npz file to write: features (and labels), an array a part"
    )
    parser.add_argument("--label", help="CSV column or npz array with labels, carried into the output")
    parser.add_argument(
        "--keras", help="also write the trained network there, as a .keras file of stock layers"
    )
    add_network_arguments(parser)
    parser.add_argument("--steps", type=int, default=1000, help="rule applications at most")
    parser.add_argument(
        "--scaling",
        choices=("auto", "range", "standard", "counts", "part-white", "none"),
        default="auto",
        help="what columns are brought to first: a common range, or variance 1 (tables only), or squashed (counts), or "
        "variance 1 and partly white (tables whose columns go together), or nothing; auto chooses by the rows",
    )
    parser.add_argument("--seed", type=int, default=0, help="of first weights and batches")
    options = parser.parse_args(arguments)
    output_file(options.output, ".npz")
    if options.keras:
        output_file(options.keras, ".keras")
    compile_quickly()
    # Imported here, so that --help answers at once.
    with quiet_import():
        import numpy as np

        from meta_rules import rows, saved_rules
        from meta_rules.learner import RuleLearner

    parts = rows.read(options.input, options.label)
    learner = RuleLearner(
        options.layer_sizes,
        rule=options.rule,
        activation=options.activation,
        steps=options.steps,
        batch_size=options.batch_size,
        scaling=None if options.scaling == "none" else options.scaling,
        random_state=options.seed,
    )
    try:
        learner.fit(next(iter(parts.values())).examples)
        features = {part: learner.transform(found.examples) for part, found in parts.items()}
    except ValueError as error:
        raise UserError(str(error)) from error
    arrays = {}
    for part, found in parts.items():
        suffix = f"_{part}" if part else ""
        arrays[f"features{suffix}"] = features[part]
        if found.labels is not None:
            arrays[f"labels{suffix}"] = found.labels
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    saved_rules.write_atomically(options.output, buffer.getvalue())
    if options.keras:
        learner.to_keras().save(options.keras)
    settled = "settled" if learner.settled_ else "reached"
    print(
        f"{settled} after {learner.n_iter_} rule applications, columns scaled: {learner.scaling_ or 'none'}"
    )
    for name, array in arrays.items():
        print(f"{name} {array.shape} in {options.output}")


if __name__ == "__main__":
    main()
