"""What a run lives through: damaged or unwritable checkpoints, a second process, other replicas, numbers not finite."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from filelock import FileLock
from small_problems import SmallRule, small_family
from test_train_command import command, run

from meta_rules import estimators, rules, saved_rules
from meta_rules.checkpoints import RunCheckpoints
from meta_rules.errors import UserError
from meta_rules.meta_trainer import MetaTrainer
from meta_rules.meta_validation import BestRule
from meta_rules.training_run import TrainingRun


def saved(folder, steps, size=2):
    """A folder with checkpoints of a variable and a pool that hold the number of their step."""
    value = tf.Variable(tf.zeros([size]))
    checkpoints = RunCheckpoints(str(folder), {"theta": [value]})
    for step in steps:
        value.assign(tf.fill([size], float(step)))
        checkpoints.save(step, {"pool": tf.fill([3], step)})
    value.assign(tf.fill([size], -1.0))
    return checkpoints, value


def restored(checkpoints):
    found = checkpoints.restore({"pool": tf.zeros([3], tf.int32)})
    return None if found is None else int(found["pool"][0])


def test_the_newest_checkpoint_comes_back_and_the_oldest_go(tmp_path):
    checkpoints, value = saved(tmp_path, (1, 2, 9, 10))
    assert checkpoints.steps() == [2, 9, 10]
    assert restored(checkpoints) == 10 and value[0] == 10.0
    assert restored(RunCheckpoints(str(tmp_path / "nothing"), {})) is None


@pytest.mark.parametrize("damage", ["truncated", "flipped", "index", "emptied"])
def test_a_damaged_checkpoint_is_skipped_and_named(tmp_path, damage, caplog):
    checkpoints, value = saved(tmp_path, (1, 2), size=1000)
    data, index = (tmp_path / "step-2" / f"state.{end}" for end in ("data-00000-of-00001", "index"))
    content = data.read_bytes()
    if damage == "truncated":
        data.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        data.write_bytes(content[:1000] + bytes([content[1000] ^ 255]) + content[1001:])
    elif damage == "index":
        index.write_bytes(index.read_bytes()[:20])
    else:
        data.unlink()
    with caplog.at_level("WARNING", logger="absl"):
        assert restored(checkpoints) == 1
    assert value[0] == 1.0
    assert "meta-step 2" in caplog.text


def test_nothing_but_damaged_checkpoints_is_an_error(tmp_path):
    checkpoints, _ = saved(tmp_path, (1,))
    (tmp_path / "step-1" / "state.index").write_bytes(b"")
    with pytest.raises(UserError, match="No checkpoint in"):
        restored(checkpoints)


def test_a_checkpoint_of_other_sizes_is_refused_and_stays(tmp_path):
    """Say of a run with `tasks_per_replica` on another number of replicas."""
    checkpoints, _ = saved(tmp_path, (1, 2))
    with pytest.raises(UserError, match=r"meta-step 2 .* shape \[3\] where this run has \[4\]"):
        checkpoints.restore({"pool": tf.zeros([4], tf.int32)})
    assert restored(checkpoints) == 2


@contextlib.contextmanager
def files_of_at_most(size):
    """The system then refuses to write more, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


def test_no_room_leaves_the_older_checkpoints(tmp_path):
    checkpoints, value = saved(tmp_path, (1, 2), size=100_000)
    with files_of_at_most(50_000), pytest.raises(UserError, match="meta-step 2 is kept"):
        checkpoints.save(3, {"pool": tf.fill([3], 3)})
    assert sorted(os.listdir(tmp_path)) == ["step-1", "step-2"]
    assert restored(checkpoints) == 2 and value[0] == 2.0


def test_one_process_a_run_directory(tmp_path):
    attempt = TrainingRun(str(tmp_path), trainer=trainer())
    with FileLock(tmp_path / ".lock"), pytest.raises(UserError, match="Another process"):
        attempt.run()
    assert not (tmp_path / "config.gin").exists()


def trainer(family=None, estimator=None, **arguments):
    # XLA's programs take a quarter of a GB each, so only what is about numbers that are not finite asks for them.
    arguments = {"meta_steps": 400, "tasks": 4, "jit_compile": False} | arguments
    return MetaTrainer(
        SmallRule(), family or small_family(), estimator or estimators.TruncatedBPTT(), **arguments
    )


def flag_of(train):
    """Whether XLA compiles what the trainer has compiled."""
    (estimate,) = train._compiled.values()
    (concrete,) = estimate._list_all_concrete_functions()
    return concrete.function_def.attr["_XlaMustCompile"].b


def assert_finite(theta):
    assert all(np.isfinite(value).all() for value in theta.values())


def poison(pool):
    """The pool with every float not a number."""
    return tf.nest.map_structure(
        lambda leaf: tf.fill(leaf.shape, tf.constant(np.nan, leaf.dtype)) if leaf.dtype.is_floating else leaf,
        pool,
    )


@pytest.mark.parametrize("name", ["truncated_bptt", "pes"])
def test_poisoned_networks_are_replaced_and_theta_stays_finite(name):
    train = trainer(estimator=estimators.REGISTRY[name](), jit_compile=True)
    before = train.rule.theta()
    train.pools[0] = poison(train.pools[0])
    metrics, _ = train.meta_step()
    assert not metrics["used"].all()
    assert_finite(train.rule.theta())
    if name == "truncated_bptt":
        assert not metrics["used"].any()
        for key, value in train.rule.theta().items():
            np.testing.assert_array_equal(value, before[key])
    used = [train.meta_step()[0]["used"].mean() for _ in range(3)]
    assert used[-1] == 1.0
    assert_finite(train.theta())


def test_a_gradient_that_is_too_large_for_a_float_is_not_taken():
    train = trainer()
    names = list(train.rule.theta())
    before = {name: value.numpy() for name, value in train.rule.theta().items()}
    huge = {name: tf.fill(value.shape, 3e38) for name, value in train.rule.theta().items()}
    norm = train._apply_in_replica(huge)
    assert norm == 0.0 and train.step == 1
    for name in names:
        np.testing.assert_array_equal(train.rule.theta()[name], before[name])


def test_a_learning_rate_far_too_high_never_makes_theta_infinite():
    train = trainer(learning_rate=3.0, clip_norm=1e6, jit_compile=True)
    seen = []

    def on_step(step, metrics, scalars):
        seen.append(step)
        assert_finite(train.rule.theta())
        assert_finite(train.theta())
        return step == 60

    try:
        train.train(on_step, patience=10)
    except UserError as error:
        assert "diverged" in str(error)
    assert seen


def test_a_data_set_of_zeros(tmp_path):
    np.savez(
        tmp_path / "zeros.npz",
        x_train=np.zeros([60, 8, 8], np.uint8),
        y_train=np.arange(60) % 3,
        x_test=np.zeros([30, 8, 8], np.uint8),
        y_test=np.arange(30) % 3,
    )
    train = trainer(small_family(sources=(f"npz:{tmp_path / 'zeros.npz'}",)), jit_compile=True)
    for _ in range(4):
        metrics, _ = train.meta_step()
        assert metrics["used"].all() and np.isfinite(metrics["loss"]).all()
    assert_finite(train.theta())


def test_several_steps_a_call_are_the_same_steps():
    family = small_family(windows=(2,))
    one, three = trainer(family, meta_steps=6), trainer(family, meta_steps=6, steps_per_call=3)
    losses = [one.meta_step()[0]["loss"] for _ in range(6)]
    joined = [three.meta_step()[0]["loss"] for _ in range(2)]
    np.testing.assert_allclose(np.concatenate(joined), np.concatenate(losses), rtol=1e-5)
    for name, value in one.theta().items():
        np.testing.assert_allclose(three.theta()[name], value, rtol=1e-5)
    assert one.step == three.step == 6
    with pytest.raises(UserError, match="steps_per_call"):
        trainer(meta_steps=7, steps_per_call=3)


def test_a_run_that_xla_does_not_compile_is_the_same_but_for_rounding():
    compiled, plain = trainer(jit_compile=True), trainer(jit_compile=False)
    for _ in range(3):
        expected, found = compiled.meta_step()[0], plain.meta_step()[0]
        np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-3)
    assert [flag_of(train) for train in (compiled, plain)] == [True, False]
    for name, value in compiled.theta().items():
        np.testing.assert_allclose(plain.theta()[name], value, rtol=1e-3)


def test_the_best_rule_is_kept(monkeypatch):
    train = trainer()
    best = BestRule(train, small_family(split="validation", ways=2))
    assert not best.known
    scores = iter([0.5, 0.7, 0.6])
    kept = []
    monkeypatch.setattr(
        "meta_rules.evaluation.few_shot.FewShotTrial.accuracies",
        lambda self, theta, ages, draws: dict.fromkeys(ages, np.float64(score := next(scores))) | {0: score},
    )
    for _ in range(3):
        train.meta_step()
        best.consider()
        kept.append(train.theta())
    assert best.score == pytest.approx(0.7) and best.step == 2
    for name, value in best.theta().items():
        np.testing.assert_array_equal(value, kept[1][name])


@pytest.mark.parametrize("name", ["truncated_bptt", "cma_es"])
def test_a_run_can_start_from_a_saved_rule(tmp_path, name, monkeypatch):
    monkeypatch.setattr(SmallRule, "rule_name", "small")
    start = {"rate": np.float32(-1.25), "planes": np.float32([0.75, 0.25])}
    saved_rules.save_rule(str(tmp_path), SmallRule(), theta=start)
    train = trainer(estimator=estimators.REGISTRY[name](), start_from=str(tmp_path))
    for key, value in start.items():
        np.testing.assert_array_equal(train.rule.theta()[key], value)
        np.testing.assert_array_equal(train.theta()[key], value)
    if name == "cma_es":
        mean = next(value for key, value in train._host_state.items() if value.shape == (3,))
        np.testing.assert_allclose(mean, [0.75, 0.25, -1.25])


def test_a_run_can_start_from_a_rule_that_ships():
    rule = rules.make("genome")
    MetaTrainer(
        rule, small_family(), estimators.REGISTRY["truncated_bptt"](), start_from="pretrained:genome-1"
    )
    for key, value in saved_rules.resolve("pretrained:genome-1").theta().items():
        np.testing.assert_array_equal(rule.theta()[key], value)


def test_a_saved_rule_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(SmallRule, "rule_name", "small")
    saved_rules.save_rule(str(tmp_path / "other"), rules.make("oja"))
    small = {"rate": np.float32(0), "planes": np.zeros([3], np.float32)}
    saved_rules.save_rule(str(tmp_path / "size"), SmallRule(), theta=small)
    for path, words in (("other", "'oja'"), ("size", r"'planes' has shape \(3,\)"), ("none", "No rule at")):
        with pytest.raises(UserError, match=words):
            trainer(start_from=str(tmp_path / path))


def test_a_family_is_traced_once_and_memory_is_flat_for_a_while():
    assert_endurance([small_family(windows=(2,))], 60)


@pytest.mark.slow
def test_two_thousand_meta_steps():
    assert_endurance([small_family(windows=(2, 4)), small_family(hidden=(6, 4))], 2000)


def assert_endurance(families, steps):
    """No retracing after the first visit of each family and window; memory at the end as in the second quarter."""
    train = trainer(families, meta_steps=steps, tasks=2, jit_compile=True)
    memory = []

    def on_step(step, metrics, scalars):
        memory.append(resident())
        return False

    assert train.train(on_step)
    for programs in (train._programs, train._compiled):
        assert len(programs) == sum(len(family.windows) for family in families)
        assert all(program.experimental_get_tracing_count() == 1 for program in programs.values())
    quarter = steps // 4
    if steps >= 1000:
        assert np.mean(memory[-quarter:]) < 1.05 * np.mean(memory[quarter : 2 * quarter])


def resident():
    """Resident memory of this process, pages."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(tmp_path):
    """The whole command, killed at random moments until ten kills are done, ends bit for bit like a run never killed."""
    more = [
        "--gin_param=MetaTrainer.meta_steps=4000",
        "--gin_param=TrainingRun.checkpoint_every=5",
        "--gin_param=TrainingRun.picture_every=5000",
    ]
    whole = run(tmp_path / "whole", *more)
    assert whole.returncode == 0, whole.stderr
    random, folder, kills = np.random.default_rng(3), tmp_path / "killed", 0
    while kills < 10:
        process = subprocess.Popen(
            command(folder, *more), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        old = newest(folder)
        deadline = time.monotonic() + 400
        # Not before the run has got a little further than the last one, or ten kills would all hit the start.
        while newest(folder) <= old and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert process.poll() is None, "the run ended before its last kill"
        time.sleep(random.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    again = run(folder, *more)
    assert again.returncode == 0 and "Resuming at meta-step" in again.stdout, again.stderr
    assert (folder / "results.json").read_bytes() == (tmp_path / "whole" / "results.json").read_bytes()
    rules = [json.loads((place / "rule" / "rule.json").read_text()) for place in (folder, tmp_path / "whole")]
    assert rules[0]["sha256"] == rules[1]["sha256"]


def newest(folder):
    """Number of the newest checkpoint in a run directory; -1 without any."""
    return max((int(path.name[5:]) for path in folder.glob("checkpoints/step-*")), default=-1)


def test_resuming_with_another_number_of_replicas(tmp_path):
    """A run on two replicas is checkpointed, and goes on with one."""
    script = os.path.join(os.path.dirname(__file__), "survival_run.py")
    done = subprocess.run(
        [sys.executable, script, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    expected = dict(np.load(tmp_path / "expected.npz", allow_pickle=False))
    train = trainer()
    train.pools = RunCheckpoints(str(tmp_path / "checkpoints"), train.variables()).restore(train.pools)
    assert train.step == 3
    losses = np.stack([train.meta_step()[0]["loss"] for _ in range(3)])
    np.testing.assert_allclose(losses, expected.pop("losses"), rtol=2e-4, atol=1e-5)
    for name, value in train.theta().items():
        np.testing.assert_allclose(value, expected[name], rtol=2e-4, atol=1e-5)
