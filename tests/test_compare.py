"""The comparison tool, on a budget that takes a moment."""

import json
import os
import subprocess
import sys

import pytest

TOOL = os.path.join(os.path.dirname(__file__), "..", "tools", "compare.py")
TINY = {
    "MetaTrainer.rule": "@GenomeRule()",
    "MetaTrainer.tasks": 4,
    "CMAES.tasks_each": 1,
    "TrainingRun.judge_steps": (3,),
    "TrainingRun.draws": 4,
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


def compare(*arguments):
    return subprocess.run([sys.executable, TOOL, *arguments], capture_output=True, text=True, timeout=300)


def test_two_configurations_on_one_budget(tmp_path):
    given = [
        f"--gin_param={name} = {value if name.endswith('rule') else repr(value)}"
        for name, value in TINY.items()
    ]
    given += ["--gin_file=gin/mnist.gin", "--gin_file=gin/genome_cmaes.gin", f"--out_dir={tmp_path}"]
    given += ["--task_steps=80", "--points=2"]
    done = compare(*given)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line for line in (tmp_path / "comparison.md").read_text().splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[:4] for row in rows[1:]] == [
        ["| mnist", "genome", "truncated_bptt", "4"],
        ["| genome_cmaes", "genome", "cma_es", "4"],
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
    assert compare(*given).returncode == 0
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
    done = compare(*given, f"--out_dir={tmp_path / 'out'}")
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert not (tmp_path / "out" / "comparison.md").exists()
