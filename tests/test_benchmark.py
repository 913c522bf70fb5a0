"""The benchmark: its count of operations against closed forms, and one case that takes a moment."""

import json
import os
import subprocess
import sys

import hlo_cost
import tensorflow as tf

TOOLS = os.path.join(os.path.dirname(__file__), "..", "tools")


def test_products_are_counted_with_the_trips_of_their_loops():
    def program(x):
        start = tf.matmul(x, x, transpose_b=True)

        def body(index, value):
            return index + 1, tf.tanh(tf.matmul(value, value))

        return tf.while_loop(lambda index, value: index < 9, body, (0, start), maximum_iterations=9)[1]

    function = tf.function(program, jit_compile=True, autograph=False)
    cost = hlo_cost.count(function, tf.ones([3, 16, 40]))
    assert cost.products == 2 * 3 * 16 * 16 * (40 + 9 * 16)
    assert cost.other >= 9 * 3 * 16 * 16


def test_a_convolution_is_counted():
    function = tf.function(
        lambda x, kernel: tf.nn.conv1d(x, kernel, stride=1, padding="VALID"),
        jit_compile=True,
        autograph=False,
    )
    cost = hlo_cost.count(function, tf.ones([2, 20, 6]), tf.ones([5, 6, 7]))
    assert cost.products == 2 * (2 * 16 * 7) * (5 * 6)


def test_a_tiny_case_has_all_figures(tmp_path):
    out = tmp_path / "benchmark.json"
    command = [
        sys.executable,
        os.path.join(TOOLS, "benchmark.py"),
        "--case=tiny",
        "--repeats=2",
        f"--out={out}",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert "| tiny |" in ran.stdout
    results = json.loads(out.read_text())
    assert min(results["matmul_float32"], results["matmul_bfloat16"]) > 0
    case = results["cases"]["tiny"]
    assert case["task_steps"] == 2 * 2 * 2  # tasks, whole lives, and an antithetic pair
    wanted = (
        "inner_steps_per_second",
        "meta_steps_per_second",
        "compile_seconds",
        "state_bytes",
        "start_again_seconds",
    )
    assert all(case[name] > 0 for name in wanted)
    # On 64-5, batch 8: the currents and the Hebbian product at the least, every step of both tasks.
    assert case["inner_products"]["products"] >= 2 * 2 * 2 * (2 * 8 * 64 * 5)


def test_an_unknown_case_is_one_clear_line():
    command = [sys.executable, os.path.join(TOOLS, "benchmark.py"), "--case=nonsense"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 2 and "nonsense" in ran.stderr and "Traceback" not in ran.stderr
