"""The command on two workers: one run directory, one stop for all, and a resume from the same state."""

import json
import os
import signal
import socket
import subprocess
import time

import numpy as np
import pytest
from test_train_command import command, run

from meta_rules import distribution, saved_rules
from meta_rules.errors import UserError
from meta_rules.workers import Workers

MORE = [
    "--gin_param=TrainingRun.judge=None",
    "--gin_param=TrainingRun.picture_every=1000",
    "--gin_param=TrainingRun.checkpoint_every=5",
    "--gin_param=MetaTrainer.meta_steps=60",
]


@pytest.fixture
def start(tmp_path):
    """Starts two workers; those that a failed test leaves are killed."""
    started = []
    yield lambda *more: started.append(two_workers(tmp_path, *more)) or started[-1]
    for worker in (worker for pair in started for worker in pair):
        worker.kill()
        worker.wait()


def two_workers(folder, *more):
    """Two workers on loopback, each with a run directory of its own name: the second must not need the first's disk."""
    with socket.socket() as first, socket.socket() as second:
        for held in (first, second):
            held.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{held.getsockname()[1]}" for held in (first, second)]
    workers = []
    for index in range(2):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        workers.append(
            subprocess.Popen(
                command(folder / f"of_{index}", "--strategy=multi_worker", *MORE, *more),
                env=os.environ | {"TF_CONFIG": json.dumps(config)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return workers


def finish(workers):
    """Exit codes, outputs and errors of the workers."""
    ends = [worker.communicate(timeout=800) for worker in workers]
    return [(worker.returncode, *end) for worker, end in zip(workers, ends, strict=True)]


def newest(folder):
    """Number of the newest checkpoint; 0 without any."""
    return max((int(path.name[5:]) for path in folder.glob("checkpoints/step-*")), default=0)


def wait_for_a_checkpoint(folder, workers, after=0):
    deadline = time.monotonic() + 800
    while newest(folder) <= after:
        assert time.monotonic() < deadline and all(worker.poll() is None for worker in workers)
        time.sleep(0.02)


@pytest.mark.slow
def test_one_is_asked_to_stop_and_both_go_on_later(tmp_path, start):
    """Twice: the second time from where the first ended. Neither run would end by itself."""
    chief, stopped = tmp_path / "of_0", 0
    for asked in (1, 0):
        workers = start("--gin_param=MetaTrainer.meta_steps=100000")
        wait_for_a_checkpoint(chief, workers, after=stopped)
        workers[asked].send_signal(signal.SIGTERM)
        ends = finish(workers)
        assert [code for code, _, _ in ends] == [0, 0], ends
        # The chief alone speaks; and the other worker's own directory has nothing that it could go on from.
        assert ends[1][1] == "" and not (tmp_path / "of_1").exists()
        assert ("Resuming at meta-step" in ends[0][1]) == (stopped > 0)
        assert f"Stopped at meta-step {newest(chief)}," in " ".join(ends[0][1].split())
        stopped = newest(chief)
        saved_rules.load_rule(str(chief / "rule"))
    assert not (chief / "results.json").exists()


@pytest.mark.slow
def test_the_rule_of_two_workers_is_that_of_one(tmp_path, start):
    # Few: rounding is amplified by Adam and by the networks, to 2e-3 of theta after 20 meta-steps.
    more = "--gin_param=MetaTrainer.meta_steps=6"
    ends = finish(start(more))
    assert [code for code, _, _ in ends] == [0, 0], ends
    left = set(os.listdir(tmp_path / "of_0"))
    assert {"config.gin", "checkpoints", "rule", "saved_model", "results.json"} <= left
    assert not (tmp_path / "of_1").exists()
    alone = run(tmp_path / "alone", *MORE, more)
    assert alone.returncode == 0, alone.stderr
    expected = saved_rules.load_rule(str(tmp_path / "alone" / "rule")).theta()
    for name, value in saved_rules.load_rule(str(tmp_path / "of_0" / "rule")).theta().items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_other_in_one_line(tmp_path, start):
    workers = start("--gin_param=MetaTrainer.meta_steps=100000")
    wait_for_a_checkpoint(tmp_path / "of_0", workers)
    workers[1].kill()
    code, _, errors = finish(workers)[0]
    assert code == 2 and "Another worker is gone" in errors, errors


@pytest.mark.slow
def test_what_the_chief_refuses_all_refuse(tmp_path, start):
    """A run directory of another configuration."""
    done = run(tmp_path / "of_0", *MORE, "--gin_param=MetaTrainer.meta_steps=2")
    assert done.returncode == 0, done.stderr
    for code, _, errors in finish(start()):
        assert code == 2 and errors.count("\n") == 1 and "another configuration" in errors


def test_a_process_alone_is_its_own_chief():
    workers = Workers(distribution.strategy("default"))
    assert workers.chief and not workers.several
    assert workers.any(True) and not workers.any(0)
    assert workers.of_chief(lambda: {"a": 1}) == {"a": 1}


@pytest.mark.parametrize(
    "text", ["", "nonsense", "{}", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}']
)
def test_a_cluster_must_be_described(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match="TF_CONFIG"):
        distribution.strategy("multi_worker")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("astral",), "astral"),
        (("default", "local", 2), "mirrored"),
        (("tpu", "local"), "No TPU"),
        (("tpu", "no-such"), "No TPU"),
    ],
)
def test_a_strategy_that_cannot_be(arguments, words):
    with pytest.raises(UserError, match=words) as error:
        distribution.strategy(*arguments)
    assert len(str(error.value).splitlines()) == 1
