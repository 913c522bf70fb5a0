"""Writes a rule for other programs: `python -m meta_rules.export --rule=pretrained --format=npz --output=rule.npz`."""

import argparse
import os

from meta_rules.console import quiet_import
from meta_rules.embed import add_network_arguments, output_file
from meta_rules.errors import UserError, exits_cleanly

_ENDINGS = {"saved_model": "", "keras": ".keras", "npz": ".npz"}


@exits_cleanly
def main(arguments=None):
    """Parses the command line and writes."""
    parser = argparse.ArgumentParser(prog="python -m meta_rules.export", description=__doc__)
    parser.add_argument(
        "--format",
        choices=sorted(_ENDINGS),
        default="saved_model",
        help="saved_model: a folder with signatures learn and embed; keras: a .keras file; npz: arrays and a JSON "
        "description (the network's settings do not matter to it)",
    )
    parser.add_argument("--output", help="what to write; named after the rule by default")
    add_network_arguments(parser)
    options = parser.parse_args(arguments)
    ending = _ENDINGS[options.format]
    name = os.path.basename(options.rule.rstrip("/")).replace(":", "-")
    output = options.output or f"{name or 'rule'}-{options.format}{ending}"
    output_file(output, ending)
    if options.batch_size < 2:
        raise UserError("--batch_size must be at least 2.")
    # Imported here, so that --help answers at once.
    with quiet_import():
        from meta_rules import saved_rules

    rule = saved_rules.resolve(options.rule)
    if options.format == "saved_model":
        from meta_rules.saved_model import export_saved_model

        if os.path.exists(output) and not os.path.isfile(os.path.join(output, "saved_model.pb")):
            raise UserError(f"{output} exists and is no SavedModel; give another --output.")
        export_saved_model(output, rule, options.layer_sizes, options.activation, options.batch_size)
    elif options.format == "keras":
        from meta_rules.rule_model import RuleModel

        partial = f"{output}.partial-{os.getpid()}.keras"
        RuleModel(rule, options.layer_sizes, options.activation, options.batch_size).save(partial)
        os.replace(partial, output)
    else:
        saved_rules.write_atomically(output, saved_rules.as_npz(rule, saved_rules.card_of(options.rule)))
    print(f"Wrote {output}")


if __name__ == "__main__":
    main()
