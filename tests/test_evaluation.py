"""The protocol, the methods and the cells of an evaluation, each against something known."""

import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from meta_rules import configuration, evaluate, saved_rules  # noqa: F401
from meta_rules.errors import UserError
from meta_rules.evaluation import comparison, methods, probes, rule_methods, sweeps  # noqa: F401
from meta_rules.evaluation.autoencoders import Autoencoder, VariationalAutoencoder
from meta_rules.evaluation.baselines import Spreading, TriangleFeatures
from meta_rules.evaluation.evaluation_run import Evaluation
from meta_rules.evaluation.parallel import on_all_cores
from meta_rules.evaluation.protocol import Draw, Protocol, ProtocolData
from meta_rules.evaluation.supervised import Supervised

SMALL = Protocol(hidden=(12, 6), batch_size=32, shots=(1, 5, "all"), draws=3, query=10, validation=10)


@pytest.fixture(scope="module")
def data():
    return ProtocolData(SMALL, "digits")


def test_a_draw_is_the_same_for_every_method(data):
    again = ProtocolData(SMALL, "digits")
    first, second = data.draw(1), again.draw(1)
    np.testing.assert_array_equal(first.unlabelled, second.unlabelled)
    np.testing.assert_array_equal(data.labelled(first, 5).examples, again.labelled(second, 5).examples)
    np.testing.assert_array_equal(data.query(first).examples, again.query(second).examples)
    assert not np.array_equal(first.permutation, data.draw(2).permutation)


def test_labelled_examples_are_of_the_pool_and_query_examples_are_not(data):
    draw = data.draw(0)
    pool = {row.tobytes() for row in draw.unlabelled}
    labelled, query = data.labelled(draw, 5), data.query(draw)
    assert {row.tobytes() for row in labelled.examples} <= pool
    assert np.bincount(labelled.labels).tolist() == [5] * 10
    place = np.argsort(draw.rows)
    np.testing.assert_array_equal(draw.unlabelled[place[labelled.rows]], labelled.examples)
    seen = pool | {row.tobytes() for row in draw.validation.examples}
    # scikit-learn's digits repeat a few pictures.
    assert np.mean([row.tobytes() in seen for row in query.examples]) < 0.02
    assert len(data.labelled(draw, "all").labels) == len(draw.unlabelled)
    # What is looked at first is a fair sample, whatever the order of the source.
    assert np.abs(np.diff(draw.rows)).mean() > 0.2 * len(draw.rows)
    other = data.labelled(draw, 5, salt=1)
    assert not np.array_equal(other.rows, labelled.rows)


def test_halves_of_the_test_split_share_no_example():
    halves = ProtocolData(Protocol(pool_split="test", permute=False, query=1000, image_size=None), "digits")
    draw = halves.draw(0)
    assert len(draw.unlabelled) + len(halves.query(draw).labels) == 450


def test_too_many_shots_are_refused(data):
    with pytest.raises(UserError, match="asked for 5000"):
        data.labelled(data.draw(0), 5000)


def test_a_probe_takes_what_does_best_on_validation():
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    support, validation, query = (
        (np.eye(3)[labels] + random.normal(scale=0.6, size=(60, 3)), labels) for _ in range(3)
    )
    fitted = [KNeighborsClassifier(k).fit(*support) for k in (15, 7, 3, 1)]
    scores = [classifier.score(*validation) for classifier in fitted]
    expected = fitted[int(np.argmax(scores))].score(*query)
    assert len(set(scores)) > 1
    assert probes.probe_accuracy("knn", support, validation, query) == pytest.approx(expected)


def test_features_that_are_not_finite_count_as_chance():
    labels = np.repeat(np.arange(4), 5)
    part = (np.full((20, 2), np.nan), labels)
    assert probes.probe_accuracy("ridge", part, part, part) == 0.25


class Known(methods.Method):
    """Gives the truth with probability 3/4 in even draws, and always in odd ones."""

    method_name = "known"

    def __init__(self, data):
        self.data = data

    def fit(self, draw, labelled=None):
        query = self.data.query(draw)
        answers = query.labels.copy()
        if draw.index % 2 == 0:
            answers[: len(answers) // 4] = (answers[: len(answers) // 4] + 1) % 10
        return {0: type("Model", (), {"predict": staticmethod(lambda _: answers)})}


def test_rows_have_mean_and_standard_error_over_draws(data):
    rows = comparison.rows("known", "digits", comparison.compare(Known(data), data))
    assert [row["shots"] for row in rows] == [1, 5, "all"]
    for row in rows:
        assert set(comparison.COLUMNS) <= set(row)
        assert row["accuracy_mean"] == pytest.approx((0.75 + 1 + 0.75) / 3)
        assert row["accuracy_sem"] == pytest.approx(np.std([0.75, 1, 0.75], ddof=1) / 3**0.5)


@pytest.mark.parametrize("draws", [1, 3, 4, 6, 8, 20])
@pytest.mark.parametrize("inputs, batch", [(64, 32), (196, 256), (427, 256), (4000, 128)])
def test_draws_are_dealt_in_parts_of_one_size_that_fit(draws, inputs, batch):
    protocol = Protocol(draws=draws, batch_size=batch)
    draw = Draw(protocol, 0, 0, None, np.zeros((10, inputs), np.float32), None, None, 10)
    together = rule_methods.RuleMethod("oja").together(draw)
    parts = -(-draws // together)
    assert 1 <= together <= rule_methods._NETWORKS and together * parts - draws < parts
    assert together == 1 or together * batch * max(inputs, 128) <= rule_methods._ARRAY


def test_a_network_is_the_same_however_many_learn_beside_it(data, monkeypatch):
    draws = [data.draw(i) for i in range(3)]

    def features(most):
        monkeypatch.setattr(rule_methods, "_NETWORKS", most)
        method = rule_methods.RuleMethod("oja", applications=(0, 20))
        together = method.together(draws[0])
        found = [method.fit_draws(draws[i : i + together]) for i in range(0, 3, together)]
        models = [models for part in found for models in part]
        return [
            [model.transform(draw.validation.examples) for model in of_draw.values()]
            for of_draw, draw in zip(models, draws, strict=True)
        ]

    beside, in_two = features(4), features(2)
    np.testing.assert_allclose(in_two, beside, rtol=1e-4, atol=1e-4)
    assert np.abs(np.asarray(beside)[:, 1] - np.asarray(beside)[:, 0]).max() > 0.1


def test_principal_components_are_as_many_as_the_network_has_features(data):
    rows = comparison.rows("pca", "digits", comparison.compare(methods.make("pca"), data, ["ridge"]))
    assert {row["features"] for row in rows} == {6}
    draw = data.draw(0)
    support, query = data.labelled(draw, 5), data.query(draw)
    space = PCA(6, random_state=draw.seed).fit(draw.unlabelled)
    parts = [(space.transform(p.examples), p.labels) for p in (support, draw.validation, query)]
    expected = probes.probe_accuracy("ridge", *parts)
    found = next(row for row in rows if row["shots"] == 5)["accuracies"][0]
    assert found == pytest.approx(expected)


def test_triangle_features_are_written_out():
    class Clusters:
        def transform(self, examples):
            return np.array([[1.0, 2.0, 6.0]])

    np.testing.assert_allclose(TriangleFeatures(Clusters()).transform(None), [[2.0, 1.0, 0.0]])


@pytest.mark.parametrize("cls", [Autoencoder, VariationalAutoencoder])
def test_an_autoencoder_learns_and_a_seed_repeats_it(data, cls):
    method, draw = cls(steps=300, learning_rate=3e-3), data.draw(0)
    parts = (data.labelled(draw, "all"), draw.validation, data.query(draw))

    def features(model):
        return [model.transform(part.examples) for part in parts]

    first = features(method.fit(draw)[300])
    method.fit(data.draw(1))
    again = features(method.fit(draw)[300])
    np.testing.assert_allclose(first[0], again[0], atol=1e-4)
    accuracy = probes.probe_accuracy("ridge", *((f, p.labels) for f, p in zip(first, parts, strict=True)))
    assert accuracy > 0.5, "six features of digits should tell most of them apart"


def test_labels_teach_the_network_and_the_graph(data):
    draw = data.draw(0)
    query, every = data.query(draw), data.labelled(draw, "all")
    for method, least in ((Supervised(steps=300, checks=3, learning_rate=3e-3), 0.8), (Spreading(), 0.85)):
        model = list(method.fit(draw, every).values())[0]
        assert np.mean(model.predict(query.examples) == query.labels) > least


def test_every_shipped_sweep_is_one_that_can_run():
    folder = os.path.join(os.path.dirname(__file__), "..", "gin", "evaluation")
    files = sorted(name for name in os.listdir(folder) if name not in ("settings.gin",))
    for name in files:
        configuration.parse([f"gin/evaluation/{name}"], [])
        evaluation = configuration.build(Evaluation, "oja", ("digits",), "unused")
        jobs = evaluation._jobs()
        assert jobs and {job.kind for job in jobs} == {"sweep"}
        made = {job.sweep[0] for job in jobs}
        assert made == set(range(len(evaluation.sweeps)))
    configuration.parse([], [])


def test_width_and_depth_change_the_network():
    base = Protocol(hidden=(128, 32))
    width = [point[2].hidden for point in sweeps.Sweep("width", (16, 64)).points(base, ("digits",))]
    depth = [point[2].hidden for point in sweeps.Sweep("depth", (1, 3)).points(base, ("digits",))]
    assert width == [(16, 32), (64, 32)]
    assert depth == [(32,), (128, 128, 32)]


@methods.register("stub")
@configuration.configurable
class Stub(methods.Method):
    """The inputs, or what `stop` says."""

    stop, calls = None, []

    def fit(self, draw, labelled=None):
        self.calls.append(draw.index)
        if self.stop is not None:
            raise self.stop
        return {0: type("Model", (), {"transform": staticmethod(lambda examples: examples)})}


def small_evaluation(folder, names):
    return Evaluation("oja", ("digits",), str(folder), SMALL, names, ("ridge",), False, False)


def test_an_interrupted_evaluation_goes_on_and_keeps_what_is_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(Stub, "stop", KeyboardInterrupt())
    assert small_evaluation(tmp_path, ("raw", "stub")).run() is None
    kept = os.listdir(tmp_path / "cells")
    assert len(kept) == 1
    before = os.stat(tmp_path / "cells" / kept[0]).st_mtime_ns
    monkeypatch.setattr(Stub, "stop", None)
    rows = small_evaluation(tmp_path, ("raw", "stub")).run()
    assert {row["method"] for row in rows} == {"raw", "stub"}
    assert os.stat(tmp_path / "cells" / kept[0]).st_mtime_ns == before
    Stub.calls.clear()
    assert small_evaluation(tmp_path, ("raw", "stub")).run() == rows
    assert not Stub.calls


def test_a_method_that_fails_is_a_row_and_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(Stub, "stop", RuntimeError("no\nluck"))
    rows = small_evaluation(tmp_path, ("stub", "raw")).run()
    assert rows[0]["error"] == "RuntimeError: no luck" and rows[0]["accuracy_mean"] is None
    assert all(row["error"] is None for row in rows[1:]) and len(rows) == 4
    assert "failed: RuntimeError: no luck" in (tmp_path / "report.md").read_text()
    monkeypatch.setattr(Stub, "stop", None)
    assert all(row["error"] is None for row in small_evaluation(tmp_path, ("stub", "raw")).run())


def test_mistakes_are_one_line(tmp_path):
    with pytest.raises(UserError, match="Unknown method 'pcs'"):
        small_evaluation(tmp_path, ("pcs",))
    with pytest.raises(UserError, match="Sweep.vary"):
        sweeps.Sweep("colour", (1,))
    done = subprocess.run(
        [sys.executable, "-m", "meta_rules.evaluate", "--rule=oja"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr == "error: Give --dataset; see --help.\n"


def test_work_on_all_cores_comes_back_in_order():
    assert on_all_cores(pow, ((number, 2) for number in range(40))) == [number**2 for number in range(40)]
    with pytest.raises(ZeroDivisionError):
        on_all_cores(divmod, [(1, number) for number in range(20)])
