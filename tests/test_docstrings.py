"""Text from installed libraries: which docstrings are documents, and that they can be learned from."""

import numpy as np
import pytest

from meta_rules.errors import UserError
from meta_rules.tasks import sources
from meta_rules.tasks.sources import docstrings

LONG = "Says what this does with numpy and np arrays at some length, in more than twenty words, "
LONG += "so that a bag of them means something at all to whoever reads it."


def test_documents_are_the_public_docstrings_of_some_length(tmp_path, monkeypatch):
    package = tmp_path / "a_library"
    (package / "tests").mkdir(parents=True)
    (package / "__init__.py").write_text(
        f'raise RuntimeError("never imported")\n\ndef one():\n    """{LONG}"""\n\n'
        f'class Two:\n    """Two. {LONG}"""\n\ndef _hidden():\n    """Hidden. {LONG}"""\n\n'
        f'def short():\n    """Too short."""\n\ndef again():\n    """{LONG}"""\n'
    )
    (package / "broken.py").write_text("def (")
    (package / "tests" / "more.py").write_text(f'def three():\n    """Three. {LONG}"""\n')
    monkeypatch.syspath_prepend(tmp_path)
    first, second = sorted(docstrings.documents("a_library"))
    assert first.startswith("Says what") and second.startswith("Two. Says")
    assert not {"numpy", "np"} & set(first.lower().split())


@pytest.mark.slow
def test_libraries_can_be_told_apart():
    data = {split: sources.load("docstrings?examples=60", split) for split in ("train", "test")}
    assert np.bincount(data["train"].labels).tolist() == [48] * 5
    assert data["test"].examples.shape == (30, data["train"].examples.shape[1])
    from sklearn.linear_model import RidgeClassifier

    model = RidgeClassifier(100.0).fit(data["train"].examples, data["train"].labels)
    assert model.score(data["test"].examples, data["test"].labels) > 0.5
    with pytest.raises(UserError, match="docstrings\\?examples"):
        sources.load("docstrings?examples=100000", "train")
