"""Several replicas, in one process and in two, against one."""

import json
import os
import socket
import subprocess
import sys

import distributed_run
import numpy as np
import pytest
import tensorflow as tf

from meta_rules import distribution

SCRIPT = os.path.join(os.path.dirname(__file__), "distributed_run.py")


def start(strategy, file, cases, **environment):
    return subprocess.Popen(
        [sys.executable, SCRIPT, strategy, str(file), *cases],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, file):
    text, _ = process.communicate(timeout=400)
    assert process.returncode == 0, text[-3000:]
    with np.load(file, allow_pickle=False) as found:
        return dict(found)


@pytest.fixture(
    scope="module",
    params=[distributed_run.EXACT, pytest.param(distributed_run.NETWORKS, marks=pytest.mark.slow)],
    ids=["exact", "networks"],
)
def one_replica(request):
    return request.param, distributed_run.train_all(request.param, distribution.strategy("default"))


def assert_same_run(found, expected):
    assert found.pop("replicas") == 2
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-4, atol=2e-5, err_msg=name)


def test_two_replicas_in_one_process(one_replica, tmp_path):
    cases, expected = one_replica
    file = tmp_path / "mirrored.npz"
    assert_same_run(finish(start("mirrored", file, cases), file), expected)


def test_two_processes_on_loopback(one_replica, tmp_path):
    cases, expected = one_replica
    with socket.socket() as first, socket.socket() as second:
        for held in (first, second):
            held.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{held.getsockname()[1]}" for held in (first, second)]
    running = []
    for index in range(2):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        file = tmp_path / f"worker{index}.npz"
        running.append((start("multi_worker", file, cases, TF_CONFIG=json.dumps(config)), file))
    results = [finish(*run) for run in running]
    assert results[0].keys() == results[1].keys()
    for name in results[0]:
        np.testing.assert_array_equal(results[0][name], results[1][name], err_msg=name)
    assert_same_run(results[0], expected)


def test_one_replica_gathers_and_scatters_nothing():
    nest = {"a": tf.range(4), "b": tf.ones([4, 2])}
    strategy = distribution.strategy("default")
    assert distribution.gather(strategy, nest) is nest and distribution.scatter(strategy, nest) is nest
