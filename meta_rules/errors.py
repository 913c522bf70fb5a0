"""Errors that a user can cause, and how a command line ends on them: one clear line, exit code 2, no traceback."""

import errno
import functools
import sys

#: What a full disk or a folder that may not be written says.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


class UserError(ValueError):
    """Something that the user can put right. The message is one line and says what to do."""


def exits_cleanly(main):
    """Decorator for a command's `main`: a `UserError` becomes one line on standard error and exit code 2."""

    @functools.wraps(main)
    def wrapped(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            sys.exit(2)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            print(f"error: Cannot write {error.filename or 'a file'}: {error.strerror}.", file=sys.stderr)
            sys.exit(2)

    return wrapped
