"""Judges a rule: `python -m meta_rules.evaluate --rule=runs/mnist/rule --dataset=mnist,digits --output=runs/report`."""

from absl import app, flags, logging

from meta_rules.console import quiet_import
from meta_rules.errors import UserError, exits_cleanly

_RULE = flags.DEFINE_string("rule", None, "Name of a rule, or the path of a saved one.")
_DATASET = flags.DEFINE_string("dataset", None, "Names of data sets, separated by commas.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "Directory for the report; an unfinished evaluation in it goes on."
)
_GIN_FILE = flags.DEFINE_multi_string(
    "gin_file",
    [],
    "Gin file, or the name of a shipped one such as gin/evaluation/width.gin; repeatable, later ones win.",
)
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "Gin binding such as Protocol.draws=5; repeatable.")


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
    # Imported here, so that --help answers at once.
    with quiet_import():
        from meta_rules import configuration, rules  # noqa: F401
        from meta_rules.evaluation import sweeps  # noqa: F401
        from meta_rules.evaluation.evaluation_run import Evaluation

    configuration.parse(_GIN_FILE.value, _GIN_PARAM.value)
    datasets = tuple(name.strip() for name in _DATASET.value.split(",") if name.strip())
    configuration.build(Evaluation, _RULE.value, datasets, _OUTPUT.value).run()


if __name__ == "__main__":
    app.run(main)
