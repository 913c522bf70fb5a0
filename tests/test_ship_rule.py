"""A rule goes into the package with the scores of a report; the card says against it what the scores say."""

import json

import pytest
import ship_rule

from meta_rules import pretrained, rules, saved_rules


def row(method, dataset, accuracy, steps=0, **more):
    return {
        "method": method, "dataset": dataset, "shots": 10, "probe": "ridge", "features": 4, "inner_steps": steps,
        "accuracy_mean": accuracy, "accuracy_sem": 0.01, "trials": 20, "seconds": 1.0, "error": None,
    } | more  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run directory and a report; rules ship into a folder of their own."""
    card = {"meta_steps": 7, "trained_on": ["strokes: drawn"], "horizon": 100}
    saved_rules.save_rule(str(tmp_path / "run" / "rule"), rules.make("oja"), card)
    (tmp_path / "run" / "config.gin").write_text("MetaTrainer.tasks = 8\n")
    rows = [
        row("raw", "npz:/data/one.npz", 0.7),
        row("kmeans", "npz:/data/one.npz", 0.9),
        row("rule:x", "npz:/data/one.npz", 0.8, 50),
        row("rule:x", "npz:/data/one.npz", 0.75, 500),
        row("rule:x", "npz:/data/one.npz", 0.1, 50, shots=1),
        row("rule:x", "npz:/data/one.npz", 0.1, 50, probe="knn"),
        row("learned", "npz:/data/one.npz", 0.2, 50),
    ]
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "results.json").write_text(json.dumps(rows))
    monkeypatch.setattr(pretrained, "root", lambda: str(tmp_path / "shipped"))
    (tmp_path / "shipped").mkdir()
    return tmp_path


def test_the_scores_of_a_report_become_the_card(run):
    ship_rule.main(
        [str(run / "run"), "mine", f"--report={run / 'report'}", "--reported_as=rule:x", "--limit=None else."]
    )
    card = saved_rules.read_rule(str(run / "shipped" / "mine-1"))[0]["card"]
    scores = [(each["method"], each["dataset"], each["accuracy_mean"]) for each in card["scores"]]
    assert scores == [
        ("raw", "one", 0.7),
        ("kmeans", "one", 0.9),
        ("learned", "one", 0.8),
        ("learned", "one", 0.75),
    ]
    assert card["horizon"] == 100 and card["setting"] == ship_rule.REPORTED
    assert card["limits"] == [
        "one: its best, 0.800, is below kmeans, 0.900.",
        "one: it loses 0.050 of its best by 500 applications.",
        "None else.",
    ]
    assert "| one | learned | 500 |" in (run / "shipped" / "mine-1" / "CARD.md").read_text()


def test_a_report_without_the_rule_is_refused(run, capsys):
    with pytest.raises(SystemExit) as end:
        ship_rule.main([str(run / "run"), "mine", f"--report={run / 'report'}", "--reported_as=rule:y"])
    assert end.value.code == 2 and "--reported_as" in capsys.readouterr().err
    assert not list((run / "shipped").iterdir())
