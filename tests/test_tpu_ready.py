"""What a TPU would refuse, found without one: operations XLA cannot compile, the host, strings, dynamic shapes, open loops."""

import functools

import contract_cases
import pytest
import tensorflow as tf
from small_problems import SmallRule, small_family
from tensorflow.python.framework import kernels

from meta_rules import estimators
from meta_rules.meta_trainer import MetaTrainer
from meta_rules.tasks.points import PointFamily

#: What XLA compiles that is not computed on the device: its kernels drop an assertion, or call the host.
HOST = {"Assert", "XlaHostCompute", "_XlaHostComputeMlir", "XlaSendToHost", "XlaRecvFromHost"}
#: What has no shape of its own: a list of tensors, a variable.
OPAQUE = (tf.variant, tf.resource)
#: Functions that are called; their bodies are looked into.
CALLS = {"StatefulPartitionedCall", "PartitionedCall", "While", "StatelessWhile", "If", "StatelessIf"}


@pytest.fixture(scope="module", autouse=True)
def compiler():
    """TensorFlow registers XLA's kernels when it first compiles something."""
    tf.function(lambda x: x + 1, jit_compile=True)(1)
    assert has_xla_kernel("MatMul") and not has_xla_kernel("EagerPyFunc")


@functools.cache
def has_xla_kernel(operation):
    """Whether XLA compiles an operation, and not for one kind of device only."""
    devices = {kernel.device_type for kernel in kernels.get_registered_kernels_for_op(operation).kernel}
    return {"XLA_CPU_JIT", "XLA_GPU_JIT"} <= devices


def graphs(graph):
    """A graph and those of all functions that it calls, loops included."""
    found, names = [graph], [graph]
    while names:
        inside = names.pop()
        for operation in inside.get_operations():
            for key in operation.node_def.attr:
                value = operation.node_def.attr[key]
                functions = (
                    [value.func, *value.list.func] if value.WhichOneof("value") in ("func", "list") else []
                )
                for function in functions:
                    if function.name:
                        inner = inside._get_function(function.name).graph
                        if not any(inner is known for known in found):
                            found.append(inner)
                            names.append(inner)
    return found


def operations(graph):
    return [operation for inner in graphs(graph) for operation in inner.get_operations()]


def refused(graph):
    """What a TPU would not take, as a list of words about it; empty for a graph that is ready."""
    found = []
    for operation in operations(graph):
        kind = operation.type
        if kind in HOST or not (kind in CALLS or kind == "Placeholder" or has_xla_kernel(kind)):
            found.append(f"{kind}: no XLA kernel")
        for output in operation.outputs:
            if output.dtype == tf.string:
                found.append(f"{kind}: string")
            elif output.dtype in OPAQUE or (kind == "Placeholder" and not output.consumers()):
                # The condition of a loop is given all of the loop's arguments, without their shapes.
                continue
            elif not output.shape.is_fully_defined():
                found.append(f"{kind} {output.name}: shape {output.shape}")
        if kind in ("While", "StatelessWhile") and not bounded(operation):
            found.append(f"{operation.name}: a loop without a static bound")
    return found


def bounded(loop):
    """Whether a loop's second input, which `tf.while_loop` makes the bound on its turns, is a constant above 0."""
    limit = tf.get_static_value(loop.inputs[1])
    return limit is not None and limit > 0


BAD = {
    "no XLA kernel": lambda x: tf.py_function(lambda y: y, [x], tf.float32),
    "string": lambda x: tf.strings.as_string(x),
    "shape": lambda x: tf.where(x > 0),
    "static bound": lambda x: tf.while_loop(lambda y: y[0] < 1.0, lambda y: (y + 1.0,), (x,)),
    "Assert": lambda x: tf.debugging.Assert(tf.reduce_all(x > 0), [x]),
    "Print": lambda x: tf.raw_ops.Print(input=x, data=[x]),
}


@pytest.mark.parametrize("words", BAD)
def test_the_check_finds(words):
    """In a function that a loop of a function calls."""

    def inner(x):
        BAD[words](x)
        return x

    def outer(x):
        return tf.while_loop(
            lambda i, x: i < 3, lambda i, x: (i + 1, tf.function(inner)(x)), (0, x), maximum_iterations=3
        )

    graph = tf.function(outer, autograph=False).get_concrete_function(tf.TensorSpec([2])).graph
    assert any(words in line for line in refused(graph))
    good = tf.function(lambda x: tf.nn.relu(x @ x), autograph=False)
    assert not refused(good.get_concrete_function(tf.TensorSpec([2, 2])).graph)


def whole_step(trainer):
    """What one replica runs in a meta-step, optimizer and average included, and its arguments."""
    pool, length = trainer.pools[0], trainer.estimator.length(trainer.problems[0], 4)
    estimate = trainer._estimate_in_replica(0, length)
    if trainer.estimator.host_update:
        copies = {key: tf.stack([value] * 4) for key, value in trainer.rule.theta().items()}
        compiled = tf.function(estimate, jit_compile=True, autograph=False)
        return compiled, (copies, {}, pool)
    step = tf.function(
        lambda pool: trainer._replica_step([estimate], [pool], [1.0]), jit_compile=True, autograph=False
    )
    return step, (pool,)


def assert_ready(rule, estimator):
    family = small_family(hidden=(4,))
    if rule.needs_labels:
        family = PointFamily(points=16, units=8, batch_size=8, hidden=(2,), horizon=(3, 6), windows=(4,))
    step, given = whole_step(MetaTrainer(rule, family, estimator, tasks=4))
    concrete = step.get_concrete_function(*given)
    assert len(operations(concrete.graph)) > 500
    assert not refused(concrete.graph)
    # XLA's own translation, before any device's code is made of it.
    program = step.experimental_get_compiler_ir(*given)(stage="hlo")
    assert program.startswith("HloModule") and " while(" in program
    # Calls out of the program, and sizes with an upper bound only, such as f32[<=8].
    for forbidden in ("custom-call", "infeed", "outfeed", " send(", " recv(", "[<=", ",<="):
        assert forbidden not in program, forbidden


def few_by_default(names, few):
    """Every name as a parameter; all but a few marked slow."""
    return [name if name in few else pytest.param(name, marks=pytest.mark.slow) for name in sorted(names)]


@pytest.mark.parametrize("name", few_by_default(estimators.REGISTRY, ("pes", "cma_es")))
def test_the_whole_meta_step_of_every_estimator(name):
    assert_ready(SmallRule(), estimators.REGISTRY[name]())


@pytest.mark.parametrize(
    "name", few_by_default(contract_cases.RULES, ("default", "genome_views", "genome_contrast"))
)
def test_the_whole_meta_step_of_every_rule(name):
    rule = contract_cases.make(name, dtype="float32")
    if not rule.theta():
        pytest.skip("a rule without meta-parameters has no meta-step")
    assert_ready(rule, estimators.TruncatedBPTT())


def test_a_second_view_of_the_batch():
    assert_ready(contract_cases.make("default", dtype="float32", corruption=0.3), estimators.TruncatedBPTT())
