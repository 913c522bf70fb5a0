"""The published rule against recorded figures, and the tools that read them: tools/check_parity.py and the importer."""

import json
import os
import shutil
import subprocess
import sys

import check_parity
import numpy as np
import pytest
import tensorflow as tf

from meta_rules import saved_rules
from meta_rules.errors import UserError
from meta_rules.rules import metz2019_checkpoint as published

ROOT = os.path.join(os.path.dirname(__file__), "..")
GOLDEN = os.path.join(os.path.dirname(__file__), "golden")
CHECKPOINT = os.path.join(GOLDEN, "ckpt", "tf_graph_data.ckpt")
SCOPE = "MoreLocalWeightUpdateProcess/"


@pytest.fixture(scope="module")
def recorded():
    with np.load(os.path.join(GOLDEN, "config_a.npz"), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def test_recorded_figures_are_met(capsys):
    assert check_parity.check(GOLDEN) == 0
    printed = capsys.readouterr().out
    for stage in (
        "top delta",
        "term decorr_x",
        "core",
        "change_b",
        "state after 5 steps",
        "embedding",
        "pm_one/loss",
    ):
        assert stage in printed
    assert "MISSED" not in printed


def test_larger_recorded_figures_are_met(shared):
    """Four hidden layers; and separate updates of V under another activation."""
    for name in ("config_b.npz", "config_c.npz"):
        table = check_parity.check_config(os.path.join(shared, "reference", "golden", name))
        assert table.missed() == 0, "\n".join(table.lines())
    separate = json.loads(
        check_parity.read_arrays(os.path.join(shared, "reference", "golden", name))[0][
            "theta_names_json"
        ].tobytes()
    )
    assert any("backward" in name for name in separate)


CHANGED = {
    "mid/h_2": "h",
    "mid/d_1": "d",
    "mid/delta_2": "delta",
    "mid/top_delta": "top delta",
    "mid/z_1": "z",
    "mid/term_1/sqr_upper_symm": "term sqr_upper_symm",
    "mid/core_w_0": "core",
    "mid/change_b_2": "change_b",
    "step5/V1": "state after 5 steps",
    "embed_after5": "embedding",
}


def test_every_deviation_is_noticed(recorded):
    """Each figure is changed by a hundredth of its rms, one entry of it to no number: the table says where."""
    data, config = dict(recorded), json.loads(recorded["config_json"].tobytes())
    random = np.random.default_rng(0)
    for name in CHANGED:
        value = data[name].copy()
        value += (
            0.01 * np.sqrt(np.mean(value**2)) * random.choice([-1, 1], size=value.shape).astype(np.float32)
        )
        data[name] = value
    data["mid/change_w_1"] = data["mid/change_w_1"].copy()
    data["mid/change_w_1"][0, 0] = np.nan
    names = json.loads(data["theta_names_json"].tobytes())
    arrays = {name: data[f"theta_{index:03d}"] for index, name in enumerate(names)}
    shapes = {name: value.shape for name, value in arrays.items()}
    rule = check_parity.Metz2019(**published.stored_configuration(shapes), **check_parity.settings(config))
    rule.assign(published.read_variables(rule, shapes, arrays.get).theta)
    table = check_parity.Table()
    check_parity.Comparison(data, config, rule, table).run()
    for stage in {*CHANGED.values(), "change_w"}:
        assert any(not gap <= limit for gap, limit in table.rows[stage].values()), stage
    untouched = ("term 0_order", "term hebb", "x")
    assert all(gap <= limit for stage in untouched for gap, limit in [table.rows[stage][1]])


def run_tool(name, *arguments):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, os.path.join(ROOT, "tools", name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)


def test_exit_codes_of_check_parity(tmp_path, capsys):
    with np.load(os.path.join(GOLDEN, "objective_a.npz"), allow_pickle=False) as archive:
        data = {name: archive[name] for name in archive.files}
    folder = tmp_path / "figures"
    folder.mkdir()

    def code(path):
        with pytest.raises(SystemExit) as ended:
            check_parity.main([str(path)])
        return ended.value.code

    np.savez(folder / "objective_x.npz", **data)
    assert code(folder) == 0
    np.savez(folder / "objective_x.npz", **{**data, "loss": data["loss"] * 1.001})
    assert code(folder) == 1
    assert "1 gaps over" in capsys.readouterr().out
    assert run_tool("check_parity.py", folder).returncode == 1
    assert code(tmp_path) == 2
    assert "Nothing to check" in capsys.readouterr().err


def test_check_parity_refuses_what_is_no_record(tmp_path):
    (tmp_path / "config_x.npz").write_bytes(b"not an archive")
    with pytest.raises(UserError, match=r"config_x\.npz is not a file of recorded figures"):
        check_parity.check(str(tmp_path))


# The checkpoint


@pytest.fixture(scope="module")
def stored():
    reader = tf.train.load_checkpoint(CHECKPOINT)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def write(folder, arrays):
    """A checkpoint in the Saver's format with exactly these names."""
    path = os.path.join(folder, "model.ckpt")
    names = list(arrays)
    tf.raw_ops.SaveV2(
        prefix=path, tensor_names=names, shape_and_slices=[""] * len(names), tensors=list(arrays.values())
    )
    return path


def test_import_writes_a_rule_that_loads(tmp_path, stored):
    done = run_tool("import_reference_checkpoint.py", CHECKPOINT, tmp_path / "rule")
    assert done.returncode == 0, done.stderr
    assert "mapped: 61" in done.stdout and "missing: 0" in done.stdout
    assert f"{SCOPE}conv_1d/b (dead" in done.stdout and "global_step (" in done.stdout
    rule = saved_rules.load_rule(str(tmp_path / "rule"))
    theta = rule.theta()
    np.testing.assert_array_equal(
        theta["top_delta/units_0/kernel"], stored[f"{SCOPE}compute_top_delta/conv_1d_1/w"]
    )
    np.testing.assert_array_equal(
        theta["unit_network/block_1/units_0/shift"],
        stored[f"{SCOPE}ConcatUnitConv_1/batch_norm/beta"].ravel(),
    )
    np.testing.assert_array_equal(
        theta["readouts/forward/0_order/bottom/kernel"],
        stored[f"{SCOPE}forwardweight_readout_0_bottom/linear/w"],
    )
    assert saved_rules.read_rule(str(tmp_path / "rule"))[0]["card"]["meta_steps"] == int(
        stored["global_step"]
    )
    with pytest.raises(UserError, match="output units"):
        rule.network((25, 16, 8))


@pytest.mark.parametrize("scope", ["", "worker/rule/"])
def test_scope_and_extra_variables_do_not_matter(tmp_path, stored, scope):
    arrays = {name.replace(SCOPE, scope): value for name, value in stored.items()}
    arrays[f"{scope}conv_1d/w/Adam"] = np.ones_like(stored[f"{SCOPE}conv_1d/w"])
    arrays["other/conv_1d/w"] = np.ones([2, 2], np.float32)
    for name, value in stored.items():
        if "/forward" in name:
            arrays[name.replace(f"{SCOPE}forward", f"{scope}backward")] = value + 1.0
    rule, read = published.read_checkpoint(write(tmp_path, arrays))
    expected = published.read_checkpoint(CHECKPOINT)[0].theta()
    assert read.prefix == scope and len(read.mapped) == 61
    for name, value in rule.theta().items():
        np.testing.assert_array_equal(value, expected[name])
    # Asked for, the backward set is read as well.
    separate, _ = published.read_checkpoint(write(tmp_path, arrays), identical_updates=False)
    np.testing.assert_allclose(
        separate.theta()["merge/backward/coefficients"], expected["merge/forward/coefficients"] + 1.0
    )


def without(arrays, name):
    return {key: value for key, value in arrays.items() if key != SCOPE + name}


REFUSED = {
    "a dead bias is missing": (lambda a: without(a, "conv_1d/b"), "Missing from it: .*conv_1d/b"),
    "a readout is missing": (
        lambda a: without(a, "forwardlin_upper_psd_top/linear/w"),
        "Missing .*psd_top/linear/w",
    ),
    "what tells the size is missing": (
        lambda a: without(a, "compute_top_delta/conv_1d_1/w"),
        "Missing .*conv_1d_1/w",
    ),
    "a wrong shape": (
        lambda a: {**a, f"{SCOPE}conv_1d/w": np.zeros([3, 44, 64], np.float32)},
        r"conv_1d/w has shape \[3, 44, 64\], expected \[3, 45, 64\]",
    ),
    "units that do not fit": (
        lambda a: {**a, f"{SCOPE}compute_top_delta/conv_1d_1/w": np.zeros([3, 32, 10], np.float32)},
        r"expected \[3, U, U\]",
    ),
    "not a number": (
        lambda a: {**a, f"{SCOPE}linear/b": np.full([32], np.nan, np.float32)},
        "linear/b holds numbers that are not finite",
    ),
    "another model": (lambda a: {"dense/kernel": np.zeros([2, 2], np.float32)}, "another model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, stored, case):
    change, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        published.read_checkpoint(write(tmp_path, change(stored)))


def test_another_output_size_is_refused_with_the_reason():
    with pytest.raises(UserError, match="as channels"):
        published.read_checkpoint(CHECKPOINT, output_size=10)


def test_what_is_not_a_checkpoint_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(UserError, match="No checkpoint"):
        published.read_checkpoint(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no checkpoints"):
        published.read_checkpoint(str(tmp_path))
    (tmp_path / "text.index").write_text("not a table")
    with pytest.raises(UserError, match="not a TensorFlow checkpoint"):
        published.read_checkpoint(str(tmp_path / "text"))
    done = run_tool("import_reference_checkpoint.py", os.path.join(GOLDEN, "config_a.npz"), tmp_path / "rule")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2 and "Traceback" not in done.stderr and len(errors) == 1
    assert "not a TensorFlow checkpoint" in errors[0] and not (tmp_path / "rule").exists()


def test_a_checkpoint_cut_short_is_refused(tmp_path):
    for file in os.listdir(os.path.dirname(CHECKPOINT)):
        shutil.copy(os.path.join(os.path.dirname(CHECKPOINT), file), tmp_path / file)
    (data,) = (file for file in os.listdir(tmp_path) if ".data-" in file)
    os.truncate(tmp_path / data, 100_000)
    with pytest.raises(UserError, match="damaged"):
        published.read_checkpoint(str(tmp_path))


def test_the_folder_and_its_files_name_the_checkpoint_too():
    for path in (os.path.dirname(CHECKPOINT), CHECKPOINT + ".index", CHECKPOINT + ".data-00000-of-00001"):
        assert len(published.read_checkpoint(path)[1].mapped) == 61
