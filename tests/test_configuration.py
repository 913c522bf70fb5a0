"""Gin: every shipped file fits the code, and what does not fit is said in one line."""

import os

import pytest

import gin
from meta_rules import configuration, distribution, estimators, rules, training_run  # noqa: F401
from meta_rules.errors import UserError
from meta_rules.evaluation import evaluation_run, sweeps  # noqa: F401

GIN = os.path.join(os.path.dirname(__file__), "..", "gin")
SHIPPED = sorted(
    os.path.relpath(os.path.join(folder, file), GIN)
    for folder, _, files in os.walk(GIN)
    for file in files
    if file.endswith(".gin")
)


@pytest.fixture(autouse=True)
def clean():
    yield
    gin.clear_config()


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_file_fits_the_code(name):
    """Every name exists, every reference resolves; the data that a file asks for may not be here."""
    first = [] if name != "quick.gin" else ["gin/mnist.gin"]
    configuration.parse([*first, f"gin/{name}"], [])
    if name.startswith("evaluation"):
        # Files for meta_rules.evaluate train nothing; what they bind is what it builds.
        assert any(line.startswith(("Evaluation.", "Protocol.")) for line in gin.config_str().splitlines())
        return
    families = gin.query_parameter("MetaTrainer.families")
    for family in families if isinstance(families, list) else [families]:
        assert family.config_key[1].endswith("Family")
    rule = gin.query_parameter("MetaTrainer.rule").scoped_configurable_fn
    assert rule().rule_name in rules.REGISTRY
    estimator = gin.query_parameter("MetaTrainer.estimator").scoped_configurable_fn
    assert estimator().estimator_name in estimators.REGISTRY


def test_a_file_of_one_s_own_may_include_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.gin").write_text("include 'mnist.gin'\nMetaTrainer.tasks = 3\n")
    configuration.parse(["mine.gin"], ["MetaTrainer.meta_steps = 7"])
    assert gin.query_parameter("MetaTrainer.tasks") == 3
    assert gin.query_parameter("MetaTrainer.meta_steps") == 7


def test_a_scoped_reference_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="Nonesuch"):
        configuration.parse(["gin/mnist.gin"], ["MetaTrainer.rule = @Nonesuch()"])


@pytest.mark.parametrize(
    "value,fits", [(3, True), (3.0, False), (True, False), ("3", False), (None, False), ((3,), False)]
)
def test_types_are_checked(value, fits):
    @configuration.configurable
    class Example:
        def __init__(self, count: int, ratio: float = 1.0, name: str | None = None):
            self.count = count

    configuration.parse([], [])
    if fits:
        assert configuration.build(Example, value, ratio=2).count == value
    else:
        with pytest.raises(UserError, match="Example.count must be a whole number"):
            configuration.build(Example, value)
    gin.config._REGISTRY.pop("meta_rules.Example")


def run_text(*bindings):
    """What a run with these bindings writes as its config.gin."""
    configuration.parse(["gin/mnist.gin"], list(bindings))
    configuration.build(distribution.Distribution)
    gin.query_parameter("MetaTrainer.rule").scoped_configurable_fn()
    return configuration.operative()


def test_what_makes_a_run_another_one():
    old = run_text("Distribution.strategy = 'mirrored'")
    assert "Distribution.strategy" in old and "DefaultRule.factors" in old
    run_text("Distribution.strategy = 'default'")
    assert configuration.differences(old) == []
    run_text("DefaultRule.hidden = 7")
    assert configuration.differences(old) == ["DefaultRule.hidden = 7", "DefaultRule.hidden = 16"]
    # A setting that an older program did not have is no difference until somebody binds it.
    older = "\n".join(line for line in old.splitlines() if "factors" not in line)
    run_text()
    assert configuration.differences(older) == []
    run_text("DefaultRule.factors = 3")
    assert configuration.differences(older) == ["DefaultRule.factors = 3"]
