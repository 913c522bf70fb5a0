"""Meta-trains an update rule: `python -m meta_rules.train --gin_file=gin/mnist.gin`."""

import os

from absl import app, flags, logging

from meta_rules import compile_cache
from meta_rules.compiler import compile_quickly
from meta_rules.console import quiet_import
from meta_rules.errors import UserError, exits_cleanly
from meta_rules.gin_flags import GIN_FILE, GIN_PARAM

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Run directory; runs/NAME_OF_THE_FIRST_GIN_FILE by default.")
_CHANGE = flags.DEFINE_bool(
    "change_configuration", False, "Go on with the run in --run_dir although its configuration was another."
)
_STRATEGY = flags.DEFINE_string(
    "strategy",
    None,
    "auto (the default), default, mirrored, multi_worker or tpu; Distribution.strategy in gin.",
)
_CPU_DEVICES = flags.DEFINE_integer(
    "cpu_devices", None, "Logical CPU devices that --strategy=mirrored spreads tasks over, without GPUs."
)
_CACHE = flags.DEFINE_bool(
    "compile_cache",
    True,
    "Keep compiled programs on disk: the same command then starts again without compiling.",
)
_TPU = flags.DEFINE_string("tpu", None, "Name of the TPU for --strategy=tpu; local by default.")


@exits_cleanly
def main(argv):
    """Parses flags and gin, and runs."""
    if len(argv) > 1:
        raise UserError(f"Unexpected argument {argv[1]!r}; see --help.")
    if not GIN_FILE.value:
        raise UserError("Give --gin_file, for example --gin_file=gin/mnist.gin.")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    # Before TensorFlow, which reads its flags once.
    compile_quickly()
    programs = compile_cache.enable() if _CACHE.value else None
    # Imported here, so that --help answers at once; rules and estimators so that gin knows them.
    with quiet_import():
        from meta_rules import configuration, distribution, estimators, rules  # noqa: F401
        from meta_rules.training_run import TrainingRun

    configuration.parse(GIN_FILE.value, GIN_PARAM.value)
    name = os.path.splitext(os.path.basename(GIN_FILE.value[0]))[0]
    given = {"strategy": _STRATEGY.value, "tpu": _TPU.value, "cpu_devices": _CPU_DEVICES.value}
    given = {key: value for key, value in given.items() if value is not None}
    strategy = configuration.build(distribution.Distribution, **given).make()
    run_dir = _RUN_DIR.value or os.path.join("runs", name)
    run = configuration.build(
        TrainingRun,
        run_dir,
        change_configuration=_CHANGE.value,
        strategy=strategy,
        on_save=lambda: compile_cache.seal(programs),
    )
    run.run()
    compile_cache.seal(programs)


if __name__ == "__main__":
    app.run(main)
