"""A progress bar for what may take long: silent while it does not."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

#: Seconds after which a bar appears.
PATIENCE = 3.0


class LateProgress:
    """Context with a progress bar on standard error that appears once `PATIENCE` seconds have passed.

    Args:
      total: steps.
      unit: what they are called.
      show: True shows the bar from the start, False never, None when it takes long.
    """

    def __init__(self, total, unit, show=None):
        self._total, self._unit, self._show = total, unit, show
        self._bar = None

    def __enter__(self):
        self._start = time.monotonic()
        return self

    def update(self, done, text=""):
        """Says how many steps are done, and anything else worth a word."""
        waited = time.monotonic() - self._start
        if self._bar is None and (self._show or (self._show is None and waited > PATIENCE)):
            self._bar = Progress(
                TextColumn(self._unit),
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(text, total=self._total)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=text)

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.stop()
