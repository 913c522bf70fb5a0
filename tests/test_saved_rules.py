"""A rule on disk: it comes back as it was, and nothing is executed from a file that is not one."""

import json
import os
import pickle

import numpy as np
import pytest

from meta_rules import saved_rules
from meta_rules.errors import UserError
from meta_rules.rules import DefaultRule


@pytest.fixture
def saved(tmp_path):
    rule = DefaultRule(hidden=6, seed=3)
    saved_rules.save_rule(tmp_path / "rule", rule, {"trained_on": ["nothing"]})
    return rule, str(tmp_path / "rule")


def rewrite(path, **changes):
    file = os.path.join(path, saved_rules.FILE)
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    description = json.loads(arrays["description"].tobytes()) | changes.pop("description", {})
    arrays |= changes | {"description": np.frombuffer(json.dumps(description).encode(), np.uint8)}
    np.savez(file, **arrays)


def test_round_trip(saved):
    rule, path = saved
    again = saved_rules.load_rule(path)
    assert again.rule_config() == rule.rule_config()
    for name, value in rule.theta().items():
        np.testing.assert_array_equal(again.theta()[name], value)
    assert saved_rules.read_rule(path)[0]["card"] == {"trained_on": ["nothing"]}


def test_names_and_paths_resolve(saved):
    assert saved_rules.resolve("default").rule_name == "default"
    assert saved_rules.resolve(saved[1]).hidden == 6
    with pytest.raises(UserError, match="default"):
        saved_rules.resolve("no_such_rule")


def test_a_changed_parameter_is_noticed(saved):
    rewrite(saved[1], step=np.float32(7))
    with pytest.raises(UserError, match="damaged"):
        saved_rules.load_rule(saved[1])


def test_a_newer_format_says_so(saved):
    rewrite(saved[1], description={"format": 99})
    with pytest.raises(UserError, match="Upgrade"):
        saved_rules.load_rule(saved[1])


def test_an_unknown_rule_names_the_known_ones(saved):
    rewrite(saved[1], description={"rule": "astrology"})
    with pytest.raises(UserError, match="default"):
        saved_rules.load_rule(saved[1])


def test_truncated_file(saved):
    file = os.path.join(saved[1], saved_rules.FILE)
    with open(file, "rb") as whole:
        content = whole.read()
    with open(file, "wb") as cut:
        cut.write(content[: len(content) // 2])
    with pytest.raises(UserError, match="not a saved rule"):
        saved_rules.load_rule(saved[1])


class Bomb:
    def __reduce__(self):
        return (os.mkdir, (os.path.join(os.environ["META_RULES_CACHE"], "exploded"),))


def test_pickles_are_never_loaded(saved):
    file = os.path.join(saved[1], saved_rules.FILE)
    for content in (
        lambda f: np.savez(f, description=np.array([Bomb()], object)),
        lambda f: pickle.dump(Bomb(), f),
    ):
        with open(file, "wb") as hostile:
            content(hostile)
        with pytest.raises(UserError):
            saved_rules.load_rule(saved[1])
    assert not os.path.exists(os.path.join(os.environ["META_RULES_CACHE"], "exploded"))


def test_missing_rule(tmp_path):
    with pytest.raises(UserError, match="No rule"):
        saved_rules.load_rule(str(tmp_path / "nowhere"))
