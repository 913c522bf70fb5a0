"""How hard XLA tries: on a processor, its first level of optimisation compiles faster and loses nothing here."""

import glob
import os

_LEVEL = "--xla_backend_optimization_level"
#: What Linux calls the accelerators for which the compiler's own level stays.
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/accel*", "/dev/vfio/[0-9]*", "/dev/kfd")


def compile_quickly():
    """Asks XLA for its first level of optimisation; to be called before TensorFlow is imported.

    A level that the user has set in `XLA_FLAGS` stays, and so does XLA's own on a machine with accelerators.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if _LEVEL not in given and not any(map(glob.glob, _ACCELERATORS)):
        os.environ["XLA_FLAGS"] = f"{given} {_LEVEL}=1".strip()
