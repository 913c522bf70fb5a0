"""The main command as a user runs it: a short run, what it leaves behind, resuming, and one clear line for mistakes."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from absl import flags

from meta_rules import saved_rules, train

TINY = [
    "--gin_file=gin/mnist.gin",
    "--gin_file=gin/quick.gin",
    "--gin_param=DefaultRule.hidden=6",
    "--gin_param=DefaultRule.error_channels=3",
    "--gin_param=DefaultRule.factors=2",
    "--gin_param=MetaTrainer.families=[@small/TaskFamily()]",
    "--gin_param=TaskFamily.sources=['digits']",
    "--gin_param=small/TaskFamily.image_size=8",
    "--gin_param=small/TaskFamily.hidden=(12, 8)",
    "--gin_param=small/TaskFamily.batch_size=16",
    "--gin_param=small/TaskFamily.windows=(4,)",
    "--gin_param=small/TaskFamily.horizon=(8, 16)",
    "--gin_param=judge/TaskFamily.image_size=8",
    "--gin_param=judge/TaskFamily.hidden=(16, 8)",
    "--gin_param=judge/TaskFamily.support=3",
    "--gin_param=judge/TaskFamily.query=5",
    "--gin_param=judge/TaskFamily.batch_size=16",
    "--gin_param=TrainingRun.judge_steps=(5,)",
]


def command(run_dir, *more):
    return [sys.executable, "-m", "meta_rules.train", f"--run_dir={run_dir}", *TINY, *more]


def run(run_dir, *more):
    return subprocess.run(command(run_dir, *more), capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first"
    done = run(folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_results_have_a_row_for_every_method(finished):
    rows = json.loads((finished[0] / "results.json").read_text())
    assert [row["method"] for row in rows] == ["raw", "untrained", "learned"]
    for row in rows:
        assert set(row) == {
            "method", "dataset", "shots", "features", "inner_steps", "accuracy_mean", "accuracy_sem", "trials",
        }  # fmt: skip
        assert row["trials"] >= 20 and 0 < row["accuracy_mean"] <= 1 and row["accuracy_sem"] > 0
    assert rows[2]["inner_steps"] == 5 and rows[2]["features"] == 8 and rows[0]["features"] == 64


def test_the_run_directory_holds_what_it_should(finished):
    folder = finished[0]
    assert {"config.gin", "checkpoints", "rule", "saved_model", "results.json"} <= set(os.listdir(folder))
    assert "MetaTrainer.meta_steps = 6" in (folder / "config.gin").read_text()
    rule = saved_rules.load_rule(str(folder / "rule"))
    assert rule.hidden == 6 and all(np.isfinite(value).all() for value in rule.theta().values())


def test_tensorboard_events(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished[0]), size_guidance={"images": 0, "tensors": 0}).Reload()
    tags = set(events.Tags()["tensors"])
    assert {
        "meta/loss",
        "meta/accuracy",
        "meta/gradient_norm",
        "meta/fraction_reset",
        "meta/learning_rate",
    } <= tags
    assert {"receptive_fields", "class_features", "configuration", "test/learned_5"} <= tags
    assert any(tag.startswith("by_age/accuracy") for tag in tags)


def test_the_same_seed_gives_the_same_results_and_killing_changes_nothing(finished, tmp_path):
    """A run that is killed after its first checkpoint and resumed ends bit for bit like one that was not."""
    expected = (finished[0] / "results.json").read_bytes()
    process = subprocess.Popen(command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 400
    while not list(tmp_path.glob("checkpoints/step-3")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = run(tmp_path)
    assert again.returncode == 0, again.stderr
    assert "Resuming at meta-step" in again.stdout
    assert (tmp_path / "results.json").read_bytes() == expected


def test_interrupt_saves_first(tmp_path):
    process = subprocess.Popen(
        command(tmp_path, "--gin_param=MetaTrainer.meta_steps=100000", "--gin_param=TrainingRun.checkpoint_every=100000"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("meta-step 1/"):
            break
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "Stopped at meta-step" in rest
    assert list(tmp_path.glob("checkpoints/step-*"))
    saved_rules.load_rule(str(tmp_path / "rule"))


SAVED_MODEL = """
import sys
sys.modules["meta_rules"] = None  # any import of the package fails
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
rows = np.random.default_rng(0).random((57, 23)).astype(np.float32)
learned = model.signatures["learn"](inputs=tf.constant(rows), steps=tf.constant(4), seed=tf.constant(1))
assert learned["kernel_1"].shape == (23, 16)
one = model.signatures["embed"](inputs=tf.constant(rows[:1]), **learned)["features"]
all_rows = model.signatures["serving_default"](inputs=tf.constant(rows), steps=tf.constant(4), seed=tf.constant(1))
assert all_rows["features"].shape == (57, 8) and np.isfinite(all_rows["features"]).all()
np.testing.assert_allclose(all_rows["features"][:1], one, atol=1e-5)
untrained = model.signatures["serving_default"](inputs=tf.constant(rows), steps=tf.constant(0), seed=tf.constant(1))
assert np.abs(untrained["features"] - all_rows["features"]).max() > 1e-3
"""


def test_the_saved_model_works_in_a_process_without_the_package(finished):
    done = subprocess.run(
        [sys.executable, "-c", SAVED_MODEL, str(finished[0] / "saved_model")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments,words",
    [
        (["--gin_file=gin/none_such.gin"], "mnist.gin"),
        (["--gin_file=gin/mnist.gin", "--gin_param=MetaTrainer.no_such_name=3"], "no_such_name"),
        (["--gin_file=gin/mnist.gin", "--gin_param=NoSuchClass.meta_steps=3"], "NoSuchClass"),
        (["--gin_file=gin/mnist.gin", "--gin_param=MetaTrainer.meta_steps='many'"], "whole number"),
        (["--gin_file=gin/mnist.gin", "--gin_param=TaskFamily.sources=['atlantis']"], "atlantis"),
        (["--gin_file=gin/mnist.gin", "--gin_param=DefaultRule.feedback='telepathy'"], "telepathy"),
        (["--gin_file=gin/mnist.gin", "--gin_param=MetaTrainer.meta_steps ="], "onfiguration"),
        (["--gin_file=gin/mnist.gin", "--strategy=astral"], "astral"),
        ([], "--gin_file"),
    ],
)
def test_mistakes_end_with_one_line_and_code_2(arguments, words, tmp_path, capsys):
    """In this process, which has TensorFlow loaded already; `test_a_mistake_in_a_process_of_its_own` is the real thing."""
    parsed = flags.FLAGS
    parsed.unparse_flags()
    parsed(["train", f"--run_dir={tmp_path / 'run'}", *arguments])
    try:
        with pytest.raises(SystemExit) as end:
            train.main(["train"])
    finally:
        for name in ("gin_file", "gin_param", "run_dir", "strategy"):
            parsed[name].unparse()
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and words in line
    assert not (tmp_path / "run").exists()


def test_a_mistake_in_a_process_of_its_own(tmp_path):
    done = run(tmp_path / "run", "--gin_param=NoSuchClass.size=3")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and "NoSuchClass" in done.stderr


def test_another_configuration_in_the_same_directory_is_refused(finished):
    done = run(finished[0], "--gin_param=MetaTrainer.learning_rate=0.5")
    assert done.returncode == 2 and "another configuration" in done.stderr


def test_two_logical_devices_give_what_one_gives(finished, tmp_path):
    """The README's command for several devices; probes of the same theta to float tolerance give nearly the same rows."""
    done = run(tmp_path, "--strategy=mirrored", "--cpu_devices=2")
    assert done.returncode == 0, done.stderr
    expected = saved_rules.load_rule(str(finished[0] / "rule")).theta()
    for name, value in saved_rules.load_rule(str(tmp_path / "rule")).theta().items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-3, atol=1e-4, err_msg=name)
