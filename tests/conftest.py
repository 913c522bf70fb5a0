"""Settings of the whole suite: quiet TensorFlow, and a cache folder that is not the user's."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Small networks, many programs: compiling is what the suite waits for, and unoptimised code is right all the same. Fusions
# by XLA's older emitter compile in half the time.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")

import pytest

#: The files that take longest, from the longest on: they come first, so that no worker is left alone with one at the end.
LONG = (
    "test_contract.py",
    "test_train_command.py",
    "test_survival.py",
    "test_inner_loop.py",
    "test_distribution.py",
    "test_visits.py",
    "test_estimators.py",
    "test_trained_parameters.py",
    "test_parity.py",
    "test_benchmark.py",
    "test_tpu_ready.py",
)


def pytest_collection_modifyitems(items):
    """See `LONG`."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory):
    """Sources cache in a folder of this test session."""
    os.environ["META_RULES_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared():
    """The developers' reference folder; tests that need it are skipped where it is absent."""
    path = os.path.join(os.path.dirname(__file__), "..", "..", "shared")
    if not os.path.isdir(path):
        pytest.skip("needs the developers' reference folder")
    return path


@pytest.fixture(scope="session", autouse=True)
def programs_as_traced():
    """TensorFlow's own graph optimiser is off, as XLA's is: it takes longer than the small programs that it speeds up."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
