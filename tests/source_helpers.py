"""What the tests of sources share."""

import os

import numpy as np
import pytest

from meta_rules.errors import UserError
from meta_rules.tasks import sources

GOOD = np.random.default_rng(0).integers(0, 256, (40, 5, 5), dtype=np.uint8)
LABELS = np.arange(40) % 4
REVIEWS = [
    ("A <br />great film, GREAT fun.", "good"),
    ("Dull film; it's dull.", "bad"),
    ("great cast, fun film", "good"),
    ("it's a dull mess - film", "bad"),
] * 5
LATER = [
    ("zebra film fun", "good"),
    ("zebra film dull", "bad"),
    ("quagga film", "good"),
    ("quagga film", "bad"),
]


@pytest.fixture(autouse=True)
def no_sets_and_no_network(tmp_path_factory, monkeypatch):
    """Tests of a module that imports this have an empty folder of prepared sets, and no network."""
    import requests

    def refuse(*args, **kwargs):
        raise requests.ConnectionError("no network")

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("tfds")))
    monkeypatch.setattr(requests, "head", refuse)


def rows(data):
    return {example.tobytes() for example in data.examples}


def refused(name, words, split="train"):
    """Loading fails with one line that holds these words, and leaves no file in the cache."""
    before = sorted(os.listdir(os.environ["META_RULES_CACHE"]))
    with pytest.raises(UserError) as caught:
        sources.load(name, split)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(os.listdir(os.environ["META_RULES_CACHE"])) == before


def write_npz(folder, **arrays):
    np.savez(folder / "own.npz", **arrays)
    return f"npz:{folder / 'own.npz'}"
