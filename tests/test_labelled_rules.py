"""Rules that are told labels, in the evaluation: how examples are shown, what a batch holds, and the rows that come of it."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics.pairwise import rbf_kernel

from meta_rules import rules, saved_rules, stateless
from meta_rules.errors import UserError
from meta_rules.evaluation import labelled_rules
from meta_rules.evaluation.curves import HORIZON, Curves, horizon_of
from meta_rules.evaluation.evaluation_run import Evaluation
from meta_rules.evaluation.labelled_rules import SemiSupervised, View
from meta_rules.evaluation.protocol import Protocol, ProtocolData
from meta_rules.tasks.few_label import FewLabelFamily

SMALL = Protocol(hidden=(12, 6), shots=(1, 10, "all"), draws=3, query=20, validation=10)
ARRANGEMENT = {"units": 96, "width": 0.25, "hidden": [], "labelled_size": 20, "batch_size": 30}


@pytest.fixture(scope="module")
def data():
    return ProtocolData(SMALL, "digits")


def test_examples_are_seen_as_normalised_similarities_to_unlabelled_ones(data):
    draw = data.draw(0)
    view = View(draw, 96, 0.25)
    seen, centres = view(draw.unlabelled[:7]), view._centres[0].numpy()
    assert {row.tobytes() for row in centres} <= {row.tobytes() for row in draw.unlabelled}
    spread = np.sum(np.var(centres.astype(float), axis=0))
    similar = rbf_kernel(draw.unlabelled[:7].astype(float), centres, gamma=0.5 / (0.25**2 * spread))
    np.testing.assert_allclose(seen, 96 * similar / similar.sum(1, keepdims=True), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(View(draw, 0, 0.25)(draw.unlabelled), draw.unlabelled)


def test_the_family_shows_examples_in_the_same_way(data):
    family = FewLabelFamily(
        sources=("digits",), image_size=8, hidden=(5,), ways=5, units=40, width=0.3, support=2, query=3
    )
    assert family.layer_sizes == (40, 5) and family.arrangement()["units"] == 40
    task = family.sample(stateless.split(stateless.key(0), 2))
    inputs, _, known = family.labelled_batch(task, task.key)
    centres, first = task.centres[1].numpy().astype(float), family.few_shot(task, task.key).support[1]
    similar = rbf_kernel(first, centres, gamma=0.5 / (0.3**2 * np.sum(np.var(centres, axis=0))))
    expected = 40 * similar / similar.sum(1, keepdims=True)
    found = inputs[1].numpy()[known[1].numpy() > 0]
    # Ten labelled pictures, in a batch with more places than that: each of them is there, and nothing else.
    nearest = np.abs(found[:, None] - expected).max(-1)
    assert nearest.min(axis=1).max() < 1e-3 and nearest.min(axis=0).max() < 1e-3


def test_a_batch_holds_labelled_examples_in_turn_and_others_without_labels():
    random = np.random.default_rng(0)
    labels = np.eye(3)[random.integers(3, size=(2, 8))]
    material = labelled_rules.Material(
        tf.constant(random.normal(size=(2, 50, 4))), tf.constant(random.normal(size=(2, 8, 4))),
        tf.constant(labels), tf.constant([5, 8]),
    )  # fmt: skip
    keys = stateless.split(stateless.key(2), 2)
    inputs, side = labelled_rules._batch(material, keys, 10, 6)
    np.testing.assert_array_equal(side.mask, [[1] * 10 + [0] * 6] * 2)
    assert not side.labels[:, 10:].numpy().any()
    for task, count in enumerate((5, 8)):
        given = [row.tobytes() for row in material.labelled[task].numpy()]
        places = [given.index(row.tobytes()) for row in inputs[task, :10].numpy()]
        assert np.bincount(places, minlength=8)[:count].min() >= 1 and max(places) < count
        np.testing.assert_array_equal(side.labels[task, :10], labels[task][places])
        others = {row.tobytes() for row in material.unlabelled[task].numpy()}
        assert {row.tobytes() for row in inputs[task, 10:].numpy()} <= others


def test_the_rule_is_a_row_beside_the_others_and_a_missing_one_does_no_harm(data, tmp_path):
    rule = rules.make("semi_supervised", hidden=4, error_channels=2)
    saved_rules.save_rule(tmp_path / "few", rule, {"arrangement": ARRANGEMENT, "horizon": 40})
    told, gone = f"semi_supervised:{tmp_path / 'few'}", f"rule:{tmp_path / 'gone'}"
    evaluation = Evaluation(
        "oja", ("digits",), str(tmp_path / "report"), SMALL, ("raw", "supervised"), ("ridge",), False, False,
        others=(str(tmp_path / "few"), str(tmp_path / "gone")),
    )  # fmt: skip
    assert evaluation.methods == ("raw", "supervised", told, gone)
    evaluation._method(told).applications = (30,)
    evaluation._method("supervised").steps = 60
    rows = evaluation.run()
    mine = {row["shots"]: row for row in rows if row["method"] == told}
    assert mine.keys() == {1, 10, "all"} and {row["error"] for row in mine.values()} == {None}
    assert {row["features"] for row in mine.values()} == {96}
    accuracy = {shots: row["accuracy_mean"] for shots, row in mine.items()}
    raw = {row["shots"]: row["accuracy_mean"] for row in rows if row["method"] == "raw"}
    # Labels spread already at the initial meta-parameters: one a class says more than to a classifier of pixels.
    assert accuracy[1] > raw[1] and accuracy[10] > 0.8
    (failed,) = [row for row in rows if row["error"]]
    assert failed["method"] == gone and "No rule" in failed["error"]
    page = (tmp_path / "report" / "report.md").read_text()
    assert "| semi supervised (" in page


def test_a_rule_told_labels_can_be_the_one_under_judgement(tmp_path):
    evaluation = Evaluation(
        "semi_supervised", ("digits",), str(tmp_path), SMALL, ("learned", "untrained", "raw")
    )
    assert evaluation.methods == ("learned", "raw") and evaluation.curves is None and not evaluation.view
    assert isinstance(evaluation._method("learned"), SemiSupervised)
    with pytest.raises(UserError, match="not told labels"):
        SemiSupervised("oja")
    with pytest.raises(UserError, match="unit"):
        SemiSupervised(arrangement={"unit": 3})


def test_curves_go_to_ten_times_the_lives_of_meta_training(tmp_path):
    rule = rules.make("oja")
    saved_rules.save_rule(tmp_path / "run" / "rule", rule, {"meta_steps": 3})
    saved_rules.save_rule(tmp_path / "new", rule, {"meta_steps": 3, "horizon": 70})
    old = str(tmp_path / "run" / "rule")
    assert horizon_of(old) == HORIZON == horizon_of("oja")
    (tmp_path / "run" / "config.gin").write_text(
        "a/TaskFamily.horizon = (50, 300)\nTaskFamily.horizon = (5, 20)\n"
    )
    assert horizon_of(old) == 300 and horizon_of("pretrained:default-1") == 2000
    curves = Curves().settled(str(tmp_path / "new"))
    assert curves.horizon == 70 and curves.points == (0, 10, 20, 50, 100, 200, 500, 700)
    assert Curves(points=(0, 3), horizon=2).settled(old).points == (0, 3)
