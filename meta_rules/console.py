"""What every command does before it imports TensorFlow: see that its output is the program's own."""

import contextlib
import logging
import os
import sys
import tempfile


@contextlib.contextmanager
def quiet_import():
    """Keeps what TensorFlow's libraries write on standard error while they load from the user, unless loading fails.

    TF_CPP_MIN_LOG_LEVEL does not cover these lines: they are written before TensorFlow's logging starts.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except BaseException:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
    # Its Python side warns of things that are meant here, such as one compiled program a task family.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
