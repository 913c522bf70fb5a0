"""What a TPU would refuse, found without one: host operations, strings, shapes and loops that are not static."""

import contract_cases
import pytest
import tensorflow as tf
from small_problems import SmallRule, small_family

from meta_rules import estimators, stateless
from meta_rules.trajectories import RuleLearning

#: Operations that call the host, or whose results have shapes that only the data decide.
REFUSED = {
    "PyFunc", "EagerPyFunc", "NumpyFunction", "Print", "PrintV2", "Assert", "Where", "Unique", "UniqueV2",
    "BooleanMask", "ReadFile", "WriteFile", "HostConst", "Placeholder_string", "ListDiff", "DynamicPartition",
}  # fmt: skip


def graphs(concrete):
    """The graph of a concrete function and of every function that it calls."""
    definition = concrete.graph.as_graph_def()
    return [definition.node, *(function.node_def for function in definition.library.function)]


def assert_ready(concrete):
    """No refused operation, no string, no shape that is not known when tracing."""
    nodes = [node for graph in graphs(concrete) for node in graph]
    assert len(nodes) > 50
    assert not {node.op for node in nodes} & REFUSED
    assert not [node.name for node in nodes if "dtype" in node.attr and node.attr["dtype"].type == 7]
    for tensor in tf.nest.flatten(concrete.structured_outputs):
        assert tensor.shape.is_fully_defined()
    for graph in [concrete.graph, *loops(concrete.graph)]:
        for operation in graph.get_operations():
            for output in operation.outputs:
                static = output.dtype in (tf.variant, tf.resource) or output.shape.is_fully_defined()
                assert static, f"{operation.type} {output.name} {output.shape}"


def loops(graph):
    """Bodies of the loops of a graph, and of the loops in them."""
    found = []
    for operation in graph.get_operations():
        if operation.type in ("While", "StatelessWhile"):
            body = graph._get_function(operation.get_attr("body").name).graph
            found += [body, *loops(body)]
    return found


def assert_bounded(graph):
    """Every loop has a number of turns that is known when tracing."""
    for inner in [graph, *loops(graph)]:
        for operation in inner.get_operations():
            if operation.type in ("While", "StatelessWhile"):
                limit = tf.get_static_value(operation.inputs[1])
                assert limit is not None and limit > 0, operation.name


@pytest.mark.parametrize("name", sorted(estimators.REGISTRY))
def test_a_meta_step_of_every_estimator(name):
    estimator, problem = estimators.REGISTRY[name](), RuleLearning(SmallRule(), small_family())
    slots = estimator.slots(stateless.key(0), 4)
    theta = problem.rule.theta()
    pool = estimator.initial(problem, theta, slots)
    if estimator.host_update:
        theta = {key: tf.stack([value] * 4) for key, value in theta.items()}
    length = estimator.length(problem, 4)
    function = tf.function(
        lambda theta, pool: estimator.estimate(problem, theta, pool, length), autograph=False
    )
    concrete = function.get_concrete_function(theta, pool)
    assert_ready(concrete)
    assert_bounded(concrete.graph)


@pytest.mark.parametrize("name", contract_cases.RULES)
def test_a_gradient_through_every_rule(name):
    rule = contract_cases.make(name)
    data, net = contract_cases.batches(), contract_cases.network(name)
    state, theta = contract_cases.initial(rule), rule.theta()
    function = tf.function(
        lambda theta, state, data: contract_cases.learn(rule, net, theta, state, data), autograph=False
    )
    concrete = function.get_concrete_function(theta, state, data)
    assert_ready(concrete)
    assert_bounded(concrete.graph)
