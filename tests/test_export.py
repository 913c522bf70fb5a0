"""The commands `embed` and `export`, as a user runs them; what they write is read without this package."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from meta_rules import RuleLearner, embed, export, rules, saved_rules
from meta_rules.rules.genome import PLANES

# Loads and serves in a process where the package cannot be imported; features are checked in NumPy.
SERVE = """
import sys
sys.modules["meta_rules"] = None
sys.path = [p for p in sys.path if p not in ("", ".")]
import numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
assert {"learn", "embed", "serving_default"} <= set(model.signatures)
for rows, width in ((40, 5), (23, 11)):
    x = np.random.default_rng(width).normal(size=(rows, width)).astype("f")
    learned = model.signatures["learn"](
        inputs=tf.constant(x), steps=tf.constant(4), seed=tf.constant(1))
    again = model.signatures["learn"](
        inputs=tf.constant(x), steps=tf.constant(0), seed=tf.constant(1))
    assert np.any(again["kernel_1"].numpy() != learned["kernel_1"].numpy())
    found = model.signatures["embed"](inputs=tf.constant(x[:1]), **learned)["features"].numpy()
    both = model.signatures["serving_default"](
        inputs=tf.constant(x), steps=tf.constant(4), seed=tf.constant(1))["features"].numpy()
    a = {name: value.numpy() for name, value in learned.items()}
    y = (x - a["mean_0"]) / (np.sqrt(a["variance_0"]) + 0.1)
    for layer in (1, 2):
        y = (y @ a[f"kernel_{layer}"] - a[f"mean_{layer}"]) / np.sqrt(a[f"variance_{layer}"] + 1e-6)
        y = np.maximum(y + a[f"bias_{layer}"], 0)
    np.testing.assert_allclose(found, y[:1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(both, y, rtol=1e-3, atol=1e-4)
assert "meta_rules.rules" not in sys.modules
"""


def run(module, **given):
    """The command in this process."""
    return module.main([f"--{name}={value}" for name, value in given.items() if value is not None])


def fails(capsys, module, **given):
    """What the command says of a mistake, in its last line; exit code 2."""
    with pytest.raises(SystemExit) as stop:
        run(module, **given)
    text = capsys.readouterr().err
    assert stop.value.code == 2 and "error: " in text.splitlines()[-1] and "Traceback" not in text, text
    return text.splitlines()[-1]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    for kind, name in (("saved_model", "model"), ("npz", "rule.npz"), ("keras", "rule.keras")):
        run(
            export,
            rule="genome",
            format=kind,
            output=str(folder / name),
            layer_sizes="8,4",
            batch_size=16,
        )
    assert sorted(os.listdir(folder)) == ["model", "rule.keras", "rule.npz"]
    return folder


def test_the_saved_model_learns_and_embeds_without_the_package(exported, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(exported / "model")], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_npz_is_arrays_and_a_description(exported):
    with np.load(exported / "rule.npz", allow_pickle=False) as archive:
        description = json.loads(bytes(archive["description"]).decode("utf-8"))
        np.testing.assert_allclose(archive["planes"], list(PLANES.values()))
        assert {name: list(archive[name].shape) for name in description["shapes"]} == description["shapes"]
    assert description["rule"] == "genome" and "W <- W + s d" in description["about"]
    assert saved_rules.load_rule(str(exported / "rule.npz")).rule_name == "genome"


def test_the_keras_file_is_the_whole_rule(exported):
    import keras

    from meta_rules.rule_model import RuleModel

    model = keras.saving.load_model(exported / "rule.keras")
    assert isinstance(model, RuleModel)
    expected = rules.make("genome").theta()
    for name, value in model.rule.theta().items():
        np.testing.assert_array_equal(value, expected[name])
    model.steps = 3
    rows = np.random.default_rng(0).normal(size=(20, 6)).astype("f")
    assert model(rows).shape == (20, 4) and np.isfinite(model(rows)).all()


def test_mistakes_of_export(tmp_path, capsys):
    (tmp_path / "full").mkdir()
    assert "no SavedModel" in fails(capsys, export, rule="oja", output=str(tmp_path / "full"))
    assert "No rule" in fails(capsys, export, rule="none", output=str(tmp_path / "x"))
    assert ".npz" in fails(capsys, export, rule="oja", format="npz", output=str(tmp_path / "x"))
    bad = tmp_path / "rule.npz"
    bad.write_bytes(b"no rule")
    assert "not a saved rule" in fails(capsys, export, rule=str(bad), output=str(tmp_path / "x"))
    assert sorted(os.listdir(tmp_path)) == ["full", "rule.npz"]


def rows():
    random = np.random.default_rng(0)
    return random.normal(size=(40, 6)) @ random.normal(size=(6, 6)), random.integers(0, 3, 40)


SETTINGS = {"rule": "oja", "steps": 10, "layer_sizes": "8,4", "batch_size": 16}


def test_embed_gives_the_learners_features_for_every_format(tmp_path):
    X, y = rows()
    np.save(tmp_path / "rows.npy", X)
    np.savez(tmp_path / "rows.npz", x=X, y=y)
    np.savez(tmp_path / "two.npz", x_train=X, y_train=y, x_test=X[:5], y_test=y[:5])
    lines = [
        ",".join([*map(repr, map(float, row)), f"class {label}"]) for row, label in zip(X, y, strict=True)
    ]
    (tmp_path / "rows.csv").write_text("\n".join(["a,b,c,d,e,f,kind", *lines]))
    expected = RuleLearner((8, 4), rule="oja", steps=10, batch_size=16, random_state=0)
    expected = expected.fit_transform(X.astype(np.float32))
    for name, label in (("rows.npy", None), ("rows.npz", None), ("two.npz", None), ("rows.csv", "kind")):
        output = tmp_path / "out.npz"
        run(embed, input=str(tmp_path / name), output=str(output), label=label, **SETTINGS)
        with np.load(output, allow_pickle=False) as found:
            suffix = "_train" if name == "two.npz" else ""
            np.testing.assert_allclose(found["features" + suffix], expected, rtol=1e-5, atol=1e-6)
            if name == "rows.npy":
                assert found.files == ["features"]
            elif name == "rows.csv":
                assert list(found["labels"]) == [f"class {label}" for label in y]
            else:
                np.testing.assert_array_equal(found["labels" + suffix], y)
            if suffix:
                np.testing.assert_allclose(found["features_test"], expected[:5], rtol=1e-5, atol=1e-6)


def test_embed_reads_named_sources_and_writes_the_network(tmp_path):
    output, network = tmp_path / "out.npz", tmp_path / "network.keras"
    run(embed, input="digits", output=str(output), keras=str(network), **SETTINGS)
    with np.load(output) as found:
        assert found["features_train"].shape[1] == 4
        assert len(found["labels_test"]) == len(found["features_test"])
    assert network.is_file()


def test_mistakes_of_embed(tmp_path, capsys):
    X, _ = rows()
    out = str(tmp_path / "out.npz")

    def says(name, **more):
        return fails(capsys, embed, **{"input": str(tmp_path / name), "output": out, **SETTINGS, **more})

    assert "no file" in says("none.npy")
    np.save(tmp_path / "objects.npy", np.array([{}, {}], object))
    assert "pickles" in says("objects.npy")
    np.savez(tmp_path / "many.npz", a=X, b=X)
    assert "one array" in says("many.npz")
    (tmp_path / "words.csv").write_text("a,b\n1,x\n2,y\n")
    assert "--label" in says("words.csv")
    assert "no column" in says("words.csv", label="c")
    np.save(tmp_path / "nan.npy", np.where(X > 2, np.nan, X))
    assert "NaN" in says("nan.npy")
    np.save(tmp_path / "one.npy", X[:1])
    assert "minimum of 2" in says("one.npy")
    np.save(tmp_path / "rows.npy", X)
    assert "layer_sizes" in says("rows.npy", layer_sizes="a")
    assert "output" in says("rows.npy", output=str(tmp_path / "nowhere" / "out.npz"))
    assert not os.path.exists(out)
