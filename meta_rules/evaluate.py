"""Judges a rule: `python -m meta_rules.evaluate --rule=runs/mnist/rule --dataset=mnist,digits --output=runs/report`."""

from absl import app, flags, logging

from meta_rules.compiler import compile_quickly
from meta_rules.console import quiet_import
from meta_rules.errors import UserError, exits_cleanly
from meta_rules.gin_flags import GIN_FILE, GIN_PARAM

_RULE = flags.DEFINE_multi_string(
    "rule", None, "Name of a rule, or the path of a saved one; further ones are compared with the first."
)
_DATASET = flags.DEFINE_string("dataset", None, "Names of data sets, separated by commas.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "Directory for the report; an unfinished evaluation in it goes on."
)


@exits_cleanly
def main(argv):
    """Parses flags and gin, and runs."""
    if len(argv) > 1:
        raise UserError(f"Unexpected argument {argv[1]!r}; see --help.")
    for flag in (_RULE, _DATASET, _OUTPUT):
        if not flag.value:
            raise UserError(f"Give --{flag.name}; see --help.")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    compile_quickly()
    # Imported here, so that --help answers at once.
    with quiet_import():
        from meta_rules import configuration, rules  # noqa: F401
        from meta_rules.evaluation import sweeps  # noqa: F401
        from meta_rules.evaluation.evaluation_run import Evaluation

    configuration.parse(GIN_FILE.value, GIN_PARAM.value)
    datasets = tuple(name.strip() for name in _DATASET.value.split(",") if name.strip())
    rule, *others = _RULE.value
    settings = {"others": tuple(others)} if others else {}
    configuration.build(Evaluation, rule, datasets, _OUTPUT.value, **settings).run()


if __name__ == "__main__":
    app.run(main)
