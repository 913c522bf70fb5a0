"""Learns features of your own rows without labels: `python -m meta_rules.embed --input=rows.npy --output=features.npz`."""

import io
import os

from absl import app, flags, logging

from meta_rules.console import quiet_import
from meta_rules.errors import UserError, exits_cleanly

_RULE = flags.DEFINE_string(
    "rule", "pretrained", "A shipped rule, the path of a saved one, or a registered name."
)
_INPUT = flags.DEFINE_string(
    "input",
    None,
    "An .npy, .npz or .csv file, or the name of a source such as digits or a TensorFlow Datasets name.",
)
_LABEL = flags.DEFINE_string("label", None, "CSV column or npz array with labels, carried into the output.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "The .npz file to write: features (and labels), one array a part."
)
_KERAS = flags.DEFINE_string(
    "keras", None, "Also writes the trained network there, as a .keras file of stock layers."
)
_LAYERS = flags.DEFINE_list(
    "layer_sizes", ["128", "32"], "Units of the layers; the last is the number of features."
)
_ACTIVATION = flags.DEFINE_string("activation", "relu", "Of every layer.")
_STEPS = flags.DEFINE_integer("steps", 1000, "Rule applications at most.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Rows an application.")
_STANDARDISE = flags.DEFINE_boolean("standardise", True, "Bring every column to mean 0 and variance 1 first.")
_SEED = flags.DEFINE_integer("seed", 0, "Of first weights and batches.")


@exits_cleanly
def main(argv):
    """Parses flags, learns from the first part of the input and writes the features of all parts."""
    if len(argv) > 1:
        raise UserError(f"Unexpected argument {argv[1]!r}; see --help.")
    for flag in (_INPUT, _OUTPUT):
        if not flag.value:
            raise UserError(f"Give --{flag.name}; see --help.")
    for flag, ending in ((_OUTPUT, ".npz"), (_KERAS, ".keras")):
        if flag.value and (
            not flag.value.endswith(ending) or not os.path.isdir(os.path.dirname(flag.value) or ".")
        ):
            raise UserError(f"--{flag.name} must be a file that ends in {ending}, in a folder that exists.")
    if not all(size.strip().isdigit() for size in _LAYERS.value):
        raise UserError(
            f"--layer_sizes must be whole numbers separated by commas, got {','.join(_LAYERS.value)}."
        )
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    # Imported here, so that --help answers at once.
    with quiet_import():
        import numpy as np

        from meta_rules import rows, saved_rules
        from meta_rules.learner import RuleLearner

    parts = rows.read(_INPUT.value, _LABEL.value)
    learner = RuleLearner(
        tuple(int(size) for size in _LAYERS.value),
        rule=_RULE.value,
        activation=_ACTIVATION.value,
        steps=_STEPS.value,
        batch_size=_BATCH_SIZE.value,
        standardise=_STANDARDISE.value,
        random_state=_SEED.value,
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
    saved_rules.write_atomically(_OUTPUT.value, buffer.getvalue())
    if _KERAS.value:
        learner.to_keras().save(_KERAS.value)
    settled = "settled" if learner.settled_ else "reached"
    print(f"{settled} after {learner.n_iter_} rule applications")
    for name, array in arrays.items():
        print(f"{name} {array.shape} in {_OUTPUT.value}")


if __name__ == "__main__":
    app.run(main)
