"""What is asked of the compiler before TensorFlow reads its flags."""

import pytest

from meta_rules import compiler


@pytest.mark.parametrize(
    ("given", "devices", "expected"),
    [
        ("", [], "--xla_backend_optimization_level=1"),
        ("--xla_dump_to=x", [], "--xla_dump_to=x --xla_backend_optimization_level=1"),
        ("--xla_backend_optimization_level=3", [], "--xla_backend_optimization_level=3"),
        ("", ["/dev/nvidia0"], ""),
    ],
)
def test_less_optimisation_is_asked_for_unless_the_user_or_an_accelerator_says_otherwise(
    given, devices, expected, monkeypatch
):
    monkeypatch.setenv("XLA_FLAGS", given)
    monkeypatch.setattr(
        compiler.glob, "glob", lambda pattern: [d for d in devices if pattern.startswith(d[:-1])]
    )
    compiler.compile_quickly()
    assert compiler.os.environ["XLA_FLAGS"] == expected
