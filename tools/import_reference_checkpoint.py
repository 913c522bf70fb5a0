"""Turns a checkpoint of the published 2019 rule into a saved rule: `python tools/import_reference_checkpoint.py CKPT OUT_DIR`.

CKPT is a TensorFlow 1 checkpoint as the paper's authors distribute it: its prefix, one of its files or a folder with one
checkpoint in it. What OUT_DIR then holds is a rule for every command's --rule and for `meta_rules.saved_rules.load_rule`.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from meta_rules.errors import UserError, exits_cleanly


def report(read):
    """Lines that say what of the checkpoint was taken and what was not."""
    yield f"scope: {read.prefix or '(none)'}"
    yield f"mapped: {len(read.mapped)}"
    for name, parameter in read.mapped.items():
        yield f"  {name} -> {parameter}"
    yield f"ignored: {len(read.ignored)}"
    for name, why in read.ignored.items():
        yield f"  {name} ({why})"
    yield "missing: 0"


@exits_cleanly
def main(arguments=None):
    """Parses the command line, reads the checkpoint and writes the rule."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("checkpoint", metavar="CKPT", help="prefix, file or folder of the checkpoint")
    parser.add_argument("out", metavar="OUT_DIR", help="folder to write the rule to")
    parser.add_argument(
        "--output_size", type=int, help="output units that the rule is meant for, to make sure"
    )
    parser.add_argument(
        "--separate_updates", action="store_true", help="V has changes of its own: read the backward* set too"
    )
    parser.add_argument(
        "--scope", help="leading scope of the names, with its last slash; found by itself otherwise"
    )
    given = parser.parse_args(arguments)

    from meta_rules import saved_rules
    from meta_rules.rules import metz2019_checkpoint

    if os.path.exists(given.out) and not os.path.isdir(given.out):
        raise UserError(f"{given.out} is a file; give a folder to write the rule to.")
    try:
        rule, read = metz2019_checkpoint.read_checkpoint(
            given.checkpoint, given.output_size, not given.separate_updates, given.scope
        )
    except metz2019_checkpoint.MissingVariables as error:
        print(f"missing: {len(error.names)}")
        for name in error.names:
            print(f"  {name}")
        raise
    card = {
        "source": "imported from a checkpoint of the code published with Metz et al., ICLR 2019",
        "checkpoint": os.path.basename(os.path.normpath(given.checkpoint)),
        "meta_steps": read.step,
    }
    saved_rules.save_rule(given.out, rule, card)
    for line in report(read):
        print(line)
    print(f"Wrote {given.out}: metz2019 for networks with {rule.output_size} output units.")


if __name__ == "__main__":
    main()
