"""Writes a rule for other programs: `python -m meta_rules.export --rule=pretrained --format=npz --output=rule.npz`."""

import os

from absl import app, flags, logging

from meta_rules.console import quiet_import
from meta_rules.errors import UserError, exits_cleanly

_RULE = flags.DEFINE_string(
    "rule", "pretrained", "A shipped rule, the path of a saved one, or a registered name."
)
_FORMAT = flags.DEFINE_enum(
    "format",
    "saved_model",
    ["saved_model", "keras", "npz"],
    "saved_model: a folder with signatures learn and embed; keras: a .keras file; npz: arrays and a JSON description.",
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "What to write; the rule's name and the format's ending by default."
)
_LAYERS = flags.DEFINE_list(
    "layer_sizes", ["128", "32"], "Units of the layers that it is to train (not for npz)."
)
_ACTIVATION = flags.DEFINE_string("activation", "relu", "Of every layer (not for npz).")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Rows a rule application (not for npz).")

_ENDINGS = {"saved_model": "", "keras": ".keras", "npz": ".npz"}


@exits_cleanly
def main(argv):
    """Parses flags and writes."""
    if len(argv) > 1:
        raise UserError(f"Unexpected argument {argv[1]!r}; see --help.")
    ending = _ENDINGS[_FORMAT.value]
    name = os.path.basename(_RULE.value.rstrip("/")).replace(":", "-")
    output = _OUTPUT.value or f"{name or 'rule'}-{_FORMAT.value}{ending}"
    if not output.endswith(ending) or not os.path.isdir(os.path.dirname(output) or "."):
        raise UserError(
            f"--output must end in {ending or 'any name'!r}, in a folder that exists, got {output!r}."
        )
    if not all(size.strip().isdigit() and int(size) for size in _LAYERS.value):
        raise UserError(
            f"--layer_sizes must be whole numbers separated by commas, got {','.join(_LAYERS.value)}."
        )
    hidden = tuple(int(size) for size in _LAYERS.value)
    if not hidden or _BATCH_SIZE.value < 2:
        raise UserError("--layer_sizes needs at least one layer, --batch_size at least 2.")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    # Imported here, so that --help answers at once.
    with quiet_import():
        from meta_rules import saved_rules

    rule = saved_rules.resolve(_RULE.value)
    if _FORMAT.value == "saved_model":
        from meta_rules.saved_model import export_saved_model

        if os.path.exists(output) and not os.path.isfile(os.path.join(output, "saved_model.pb")):
            raise UserError(f"{output} exists and is no SavedModel; give another --output.")
        export_saved_model(output, rule, hidden, _ACTIVATION.value, _BATCH_SIZE.value)
    elif _FORMAT.value == "keras":
        from meta_rules.rule_model import RuleModel

        partial = f"{output}.partial-{os.getpid()}.keras"
        RuleModel(rule, hidden, _ACTIVATION.value, _BATCH_SIZE.value).save(partial)
        os.replace(partial, output)
    else:
        saved_rules.write_atomically(output, saved_rules.as_npz(rule, saved_rules.card_of(_RULE.value)))
    print(f"Wrote {output}")


if __name__ == "__main__":
    app.run(main)
