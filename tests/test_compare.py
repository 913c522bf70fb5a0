"""The comparison tool, on a budget that takes a moment."""

import json
import os
import subprocess
import sys

import compare
import numpy as np
import pytest

from meta_rules.summaries import pixels

TOOL = os.path.join(os.path.dirname(__file__), "..", "tools", "compare.py")
TINY = {
    "MetaTrainer.rule": "@OjaRule()",
    "MetaTrainer.tasks": 4,
    "TrainingRun.judge_steps": (3,),
    "TrainingRun.draws": 4,
    "MetaTrainer.families": "[@small/TaskFamily()]",
    "small/TaskFamily.sources": ["digits"],
    "small/TaskFamily.image_size": 8,
    "small/TaskFamily.hidden": (6, 5),
    "small/TaskFamily.batch_size": 8,
    "small/TaskFamily.ways": 3,
    "small/TaskFamily.support": 3,
    "small/TaskFamily.query": 3,
    "small/TaskFamily.horizon": (5, 5),
    "small/TaskFamily.windows": (5,),
    "judge/TaskFamily.sources": ["digits"],
    "judge/TaskFamily.image_size": 8,
    "judge/TaskFamily.hidden": (6, 5),
    "judge/TaskFamily.batch_size": 8,
    "judge/TaskFamily.support": 3,
    "judge/TaskFamily.query": 5,
}


def run(*arguments):
    return subprocess.run([sys.executable, TOOL, *arguments], capture_output=True, text=True, timeout=300)


def made_up(rule, ends, steps=("50",)):
    def point(share, end):
        accuracy = {"raw": 0.7, "0": 0.5} | {n: 0.5 + share * (end - 0.5) for n in steps}
        return {
            "meta_steps": int(10 * share),
            "task_steps": int(100 * share),
            "seconds": 6 * share,
            "accuracy": accuracy,
        }

    return [
        {
            "seed": seed,
            "rule": rule,
            "estimator": "pes",
            "points": [point(share, end) for share in (0, 0.5, 1)],
        }
        for seed, end in enumerate(ends)
    ]


def test_table_and_plot_show_means_over_seeds():
    found = {"one": made_up("genome", [0.8, 0.6]), "two": made_up("default", [0.9, 0.9], steps=("50", "500"))}
    lines = compare.table(found, 100, [0, 1]).splitlines()
    assert "| one | genome | pes | 10 | 6 | 0.700 ± 0.100 |  |" in lines
    assert "| two | default | pes | 10 | 6 | 0.900 ± 0.000 | 0.900 ± 0.000 |" in lines
    assert lines[-1].endswith("raw inputs 0.700, features of an untrained network 0.500.")
    figure = compare.plot(found)
    curves = [{line.get_label(): line for line in panel.lines} for panel in figure.axes]
    assert [panel.get_title() for panel in figure.axes] == ["after 50 applications", "after 500 applications"]
    np.testing.assert_allclose(curves[0]["one"].get_ydata(), [0.5, 0.6, 0.7])
    np.testing.assert_allclose(curves[0]["one"].get_xdata(), [0, 50, 100])
    assert "one" not in curves[1] and "two" in curves[1]
    assert pixels(figure).std() > 0


@pytest.mark.slow
def test_two_configurations_on_one_budget(tmp_path):
    given = [
        f"--gin_param={name} = {value if name.endswith('rule') else repr(value)}"
        for name, value in TINY.items()
    ]
    given += ["--gin_file=gin/mnist.gin", "--gin_file=gin/es.gin", f"--out_dir={tmp_path}"]
    given += ["--task_steps=80", "--points=2"]
    done = run(*given)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line for line in (tmp_path / "comparison.md").read_text().splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[:4] for row in rows[2:]] == [
        ["| mnist", "oja", "truncated_bptt", "4"],
        ["| es", "oja", "es", "2"],
    ]
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    files = sorted((tmp_path / "runs").iterdir())
    curves = [json.loads(file.read_text())["points"] for file in files]
    for points in curves:
        assert [point["task_steps"] for point in points] == [0, 40, 80]
        assert all(0 <= point["accuracy"]["3"] <= 1 for point in points)
    # Both start from the same rule and are judged on the same draws.
    assert curves[0][0]["accuracy"] == curves[1][0]["accuracy"]
    before = [file.stat().st_mtime_ns for file in files]
    assert run(*given).returncode == 0
    assert [file.stat().st_mtime_ns for file in sorted((tmp_path / "runs").iterdir())] == before


@pytest.mark.parametrize(
    "given, message",
    [
        ([], "Give --gin_file"),
        (["--gin_file=gin/none_such.gin"], "No gin file"),
        (["--gin_file=gin/mnist.gin", "--gin_file=mnist.gin"], "same name"),
        (["--gin_file=gin/mnist.gin", "--seeds=a"], "--seeds"),
    ],
)
def test_mistakes_are_one_line(given, message, tmp_path):
    done = run(*given, f"--out_dir={tmp_path / 'out'}")
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert not (tmp_path / "out" / "comparison.md").exists()
