"""Meta-trains an update rule: `python -m meta_rules.train --gin_file=gin/mnist.gin`."""

import os

from absl import app, flags, logging

from meta_rules.console import quiet_import
from meta_rules.errors import UserError, exits_cleanly

_GIN_FILE = flags.DEFINE_multi_string(
    "gin_file", [], "Gin file, or the name of a shipped one; repeatable, later ones win."
)
_GIN_PARAM = flags.DEFINE_multi_string(
    "gin_param", [], "Gin binding such as MetaTrainer.meta_steps=10; repeatable."
)
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Run directory; runs/NAME_OF_THE_FIRST_GIN_FILE by default.")
_STRATEGY = flags.DEFINE_string("strategy", "auto", "auto, default, mirrored, multi_worker or tpu.")
_CPU_DEVICES = flags.DEFINE_integer(
    "cpu_devices", None, "Logical CPU devices that --strategy=mirrored spreads tasks over, without GPUs."
)
_TPU = flags.DEFINE_string("tpu", "local", "Name of the TPU for --strategy=tpu.")


@exits_cleanly
def main(argv):
    """Parses flags and gin, and runs."""
    if len(argv) > 1:
        raise UserError(f"Unexpected argument {argv[1]!r}; see --help.")
    if not _GIN_FILE.value:
        raise UserError("Give --gin_file, for example --gin_file=gin/mnist.gin.")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    # Imported here, so that --help answers at once; rules and estimators so that gin knows them.
    with quiet_import():
        from meta_rules import configuration, distribution, estimators, rules  # noqa: F401
        from meta_rules.training_run import TrainingRun

    configuration.parse(_GIN_FILE.value, _GIN_PARAM.value)
    name = os.path.splitext(os.path.basename(_GIN_FILE.value[0]))[0]
    strategy = distribution.strategy(_STRATEGY.value, _TPU.value, _CPU_DEVICES.value)
    run = configuration.build(TrainingRun, _RUN_DIR.value or os.path.join("runs", name), strategy=strategy)
    run.run()


if __name__ == "__main__":
    app.run(main)
