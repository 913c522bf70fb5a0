"""Cells: the pieces of an evaluation. A finished one is kept on disk, so that interrupted work goes on where it stopped."""

import hashlib
import json
import os
import re

from meta_rules.saved_rules import write_atomically

#: Raised with whatever changes the meaning of a cell's content.
_FORMAT = 2


class Cells:
    """A folder of finished cells.

    Args:
      folder: made if need be.
    """

    def __init__(self, folder):
        self.folder = folder
        os.makedirs(folder, exist_ok=True)

    def path(self, label, key):
        """File of a cell.

        Args:
          label: a few words for people.
          key: JSON-ready, all that its content depends on.
        """
        text = json.dumps([_FORMAT, key], sort_keys=True)
        words = re.sub(r"[^A-Za-z0-9]+", "-", label).strip("-")[-80:]
        return os.path.join(self.folder, f"{words}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json")

    def read(self, label, key):
        """The content of a finished cell, or None."""
        try:
            with open(self.path(label, key)) as file:
                return json.load(file)["content"]
        except (OSError, ValueError, KeyError):
            return None

    def write(self, label, key, content):
        """Keeps the content, JSON-ready, of a cell that is finished."""
        text = json.dumps({"label": label, "key": key, "content": content}, indent=1)
        write_atomically(self.path(label, key), text.encode())
