"""How fast this machine meta-trains: one table for a list of named cases.

python tools/benchmark.py --out=benchmark.json                 # all cases
python tools/benchmark.py --case=default_small --case=default  # some of them
python tools/benchmark.py --replicas                           # what a second replica on a second core is worth

Every case runs in a process of its own, so that start, compilation and memory are its own; medians of several runs. A
second process then starts the case again with the compiled programs that the first one left on disk, and takes the memory.
A task-step is one application of a rule to one network; for a meta-gradient it counts once, though it is run forward
and backward and, between the two, again. On a GPU the same command measures the GPU.
"""

import argparse
import contextlib
import ctypes
import gc
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from meta_rules.errors import UserError, exits_cleanly

DIGITS = {"sources": ("digits",)}
SMALL = {**DIGITS, "image_size": 10, "hidden": (64, 32), "batch_size": 64}
WIDE = {**DIGITS, "image_size": 14, "hidden": (128, 128, 32), "batch_size": 128}
DEEP = {**DIGITS, "image_size": 14, "hidden": (128, 128, 128, 128, 32), "batch_size": 128}
TINY = {**DIGITS, "image_size": 8, "hidden": (5,), "batch_size": 8, "ways": 3, "support": 3, "query": 3}
TINY["horizon"] = (2, 2)
#: Rule, its arguments, task family, estimator, tasks, window.
CASES = {
    "default_small": ("default", {}, SMALL, "truncated_bptt", 8, 20),
    "default": ("default", {}, WIDE, "truncated_bptt", 8, 10),
    "metz2019_1": ("metz2019", {}, DEEP, "truncated_bptt", 1, 4),
    "metz2019_4": ("metz2019", {}, DEEP, "truncated_bptt", 4, 4),
    "genome": ("genome", {}, SMALL, "truncated_bptt", 8, 20),
    "pes": ("default", {}, SMALL, "pes", 8, 20),
    "tiny": ("default", {"hidden": 2, "planes": ("hebb",), "feedback": "none"}, TINY, "es", 2, 2),
}
#: Whose memory `--growth` also measures with a longer window: it means another compilation.
GROWN = ("default_small", "default", "metz2019_1", "tiny")
#: TensorFlow's own pool never returns memory, so that nothing would be seen to be taken; without it malloc serves.
PLAIN_MEMORY = {
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "0",
}
#: Not in a run that names no case: for the test of this program.
UNLISTED = ("tiny",)


def matmul_rate(dtype, size=2048, repeats=7):
    """Operations a second of a compiled matrix product of that size; median."""
    import tensorflow as tf

    left = tf.cast(tf.random.stateless_normal([size, size], [1, 2]), dtype)
    product = tf.function(lambda x: tf.matmul(x, x), jit_compile=True, autograph=False)
    return 2.0 * size**3 / median_time(lambda: product(left)[0, 0].numpy(), repeats)


def median_time(call, repeats):
    """Median of the seconds that a call takes, without its first."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_of(call):
    """Bytes of main memory that a call needs at most beyond what is in use before it; Linux counts them.

    The process must run with `PLAIN_MEMORY`.
    """
    gc.collect()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        call()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name + ":"))


def trainer_of(case, strategy=None, tasks=None, window=None):
    """A `MetaTrainer` of a case."""
    from meta_rules import estimators, rules
    from meta_rules.meta_trainer import MetaTrainer
    from meta_rules.tasks.family import TaskFamily

    rule, config, family, estimator, its_tasks, its_window = CASES[case]
    family = TaskFamily(**family, windows=(window or its_window,))
    settings = {"meta_steps": 10**6, "tasks": tasks or its_tasks, "strategy": strategy}
    if strategy is None:
        return MetaTrainer(
            rules.base.make(rule, **config), family, estimators.REGISTRY[estimator](), **settings
        )
    with strategy.scope():
        made = rules.base.make(rule, **config)
    return MetaTrainer(made, family, estimators.REGISTRY[estimator](), **settings)


def measure_case(case, began, repeats):
    """All figures of a case, in this process: a JSON-ready dict; times in seconds, memory in bytes.

    Args:
      case: name of a case.
      began: `time.time()` at which this process was started.
      repeats: timed runs.
    """
    import tensorflow as tf
    from hlo_cost import count

    from meta_rules.estimators.groups import map_groups, ungroup
    from meta_rules.inner_loop import unroll
    from meta_rules.rules.base import per_task

    trainer = trainer_of(case)
    ((_, window),) = trainer.choice(0)
    start = time.perf_counter()
    _, scalars = trainer.meta_step()
    first, since = time.perf_counter() - start, time.time() - began
    meta = median_time(trainer.meta_step, repeats)
    problem, theta = trainer.problems[0], trainer.rule.theta()
    length = trainer.estimator.length(problem, window)
    trajectory = trainer.estimator.trajectory(trainer.pools[0])
    tasks = trajectory.age.shape[0]
    size = trainer.tasks_at_once(0)

    def inner(theta, trajectory):
        def step(copies, now, index):
            return problem.advance(copies, now), ()

        def group(part):
            return unroll(step, per_task(theta, size), part, length, differentiable=False)[0]

        return ungroup(map_groups(group, trajectory, size))

    compiled = tf.function(inner, jit_compile=True, autograph=False)
    forward = median_time(lambda: compiled(theta, trajectory).state.kernels[0].numpy(), repeats)
    gradient = tf.function(
        lambda theta, pool: trainer.estimator.estimate(problem, theta, pool, length),
        jit_compile=True,
        autograph=False,
    )
    start = time.perf_counter()
    cost = count(gradient, theta, trainer.pools[0])
    compile_seconds = time.perf_counter() - start
    # Not optimised: that would be one more compilation, and the products are the same.
    inner_cost = count(compiled, theta, trajectory, stage="hlo")
    state = sum(leaf.shape.num_elements() * leaf.dtype.size for leaf in tf.nest.flatten(trajectory))
    return {
        "tasks": tasks,
        "window": window,
        "task_steps": scalars["task_steps"],
        "inner_steps_per_second": tasks * length / forward,
        "meta_steps_per_second": scalars["task_steps"] / meta,
        "inner_products": cost_row(inner_cost, forward),
        "meta_products": cost_row(cost, meta),
        "state_bytes": state,
        "compile_seconds": compile_seconds,
        "first_call_seconds": first,
        "start_to_first_meta_step_seconds": since,
    }


def cost_row(cost, seconds):
    """Counted operations of one call and the rate of its products."""
    return {"products": cost.products, "other": cost.other, "rate": cost.products / seconds}


def measure_again(case, began, window=None):
    """Seconds from the start to the first meta-step, and bytes that a meta-step needs; of a case, with another window."""
    trainer = trainer_of(case, window=window)
    trainer.meta_step()
    since = time.time() - began
    trainer.meta_step()
    return {"start_again_seconds": since, "peak_bytes": peak_of(trainer.meta_step)}


def measure_replica(mode, repeats):
    """Meta-gradient task-steps a second of `default_small` in one worker of a mode; 4 tasks a replica."""
    import tensorflow as tf

    from meta_rules import distribution

    # One thread a replica. Two replicas of one process share its threads; collectives wait on threads of their own.
    tf.config.threading.set_intra_op_parallelism_threads(2 if mode == "mirrored" else 1)
    tf.config.threading.set_inter_op_parallelism_threads(4)
    if mode == "mirrored":
        strategy, replicas = distribution.strategy("mirrored", cpu_devices=2), 2
    elif mode == "multi_worker":
        strategy, replicas = distribution.strategy("multi_worker"), 2
    else:
        strategy, replicas = None, 1
    trainer = trainer_of("default_small", strategy, tasks=4 * replicas)
    _, scalars = trainer.meta_step()
    return {"meta_steps_per_second": scalars["task_steps"] / median_time(trainer.meta_step, repeats)}


def start_child(request, cores=None, environment=None):
    """A process of this program that measures what `request` says."""
    command = [
        sys.executable,
        os.path.abspath(__file__),
        "--child",
        json.dumps(request | {"began": time.time()}),
    ]
    pin = (lambda: os.sched_setaffinity(0, cores)) if cores else None
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=pin,
        env=os.environ | (environment or {}),
    )


def answer(child):
    """What a child measured.

    Raises:
      UserError: it failed; the message has its last line.
    """
    out, errors = child.communicate()
    if child.returncode:
        raise UserError(f"A measurement failed: {(errors.strip() or out).splitlines()[-1]}")
    return json.loads(out.splitlines()[-1])


def measure_in_children(case, repeats, growth):
    """All figures of a case, each in a process where it is not disturbed by the others."""
    with tempfile.TemporaryDirectory() as programs:
        keeping = {"TF_XLA_FLAGS": f"--tf_xla_persistent_cache_directory={programs}"}
        found = answer(start_child({"what": "case", "case": case, "repeats": repeats}, environment=keeping))
        found |= answer(start_child({"what": "again", "case": case}, environment=keeping | PLAIN_MEMORY))
    if growth and case in GROWN:
        window = 4 * found["window"]
        ask = {"what": "again", "case": case, "window": window}
        more = answer(start_child(ask, environment=PLAIN_MEMORY))["peak_bytes"]
        found["growth_bytes"] = (more - found["peak_bytes"]) / (window - found["window"])
    return found


def measure_replicas(repeats):
    """Rates of one replica on one core and of two on two, in both ways; a dict of mode -> rate, and the better ratio."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise UserError("--replicas needs two cores.")
    ask = {"what": "replica", "repeats": repeats}
    found = {"one": answer(start_child(ask | {"mode": "one"}, cores[:1]))["meta_steps_per_second"]}
    mirrored = answer(start_child(ask | {"mode": "mirrored"}, cores))
    found["mirrored"] = mirrored["meta_steps_per_second"]
    with socket.socket() as first, socket.socket() as second:
        ports = []
        for each in (first, second):
            each.bind(("localhost", 0))
            ports.append(f"localhost:{each.getsockname()[1]}")
    children = []
    for i, core in enumerate(cores):
        place = json.dumps({"cluster": {"worker": ports}, "task": {"type": "worker", "index": i}})
        children.append(start_child(ask | {"mode": "multi_worker"}, [core], {"TF_CONFIG": place}))
    found["multi_worker"] = answer(children[0])["meta_steps_per_second"]
    answer(children[1])
    better = max(found["mirrored"], found["multi_worker"])
    return found | {"speed_of_two_over_one": better / found["one"]}


def table(results):
    """The measured cases as Markdown."""
    rate, bfloat = results["matmul_float32"], results["matmul_bfloat16"]
    lines = [
        f"{results['device']}; matrix product at 2048: {rate / 1e9:.0f} GFLOP/s float32, {bfloat / 1e9:.0f} bfloat16",
        "",
        "| case | inner steps/s | of matmul | meta steps/s | of matmul | GFLOP a step | peak MB | MB a window step "
        "(stored) | compile s | start s | start again s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, case in results["cases"].items():
        if "error" in case:
            lines.append(f"| {name} | {case['error']} |" + " |" * 9)
            continue
        products = case["meta_products"]["products"] / case["task_steps"] / 1e9
        growth = f"{case['growth_bytes'] / 1e6:.2f}" if "growth_bytes" in case else "-"
        lines.append(
            f"| {name} | {case['inner_steps_per_second']:.1f} | {case['inner_products']['rate'] / rate:.0%} | "
            f"{case['meta_steps_per_second']:.1f} | {case['meta_products']['rate'] / rate:.0%} | {products:.3g} | "
            f"{case['peak_bytes'] / 1e6:.0f} | {growth} ({case['state_bytes'] / 1e6:.2f}) | "
            f"{case['compile_seconds']:.1f} | {case['start_to_first_meta_step_seconds']:.1f} | "
            f"{case['start_again_seconds']:.1f} |"
        )
    return "\n".join(lines)


def measure(request):
    """What a child does: the figures that a request asks for."""
    import tensorflow as tf

    if request["what"] == "machine":
        gpus = tf.config.list_physical_devices("GPU")
        name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else None
        rates = {f"matmul_{dtype}": matmul_rate(dtype) for dtype in ("float32", "bfloat16")}
        return {
            "device": name or f"{len(os.sched_getaffinity(0))} CPU cores",
            "tensorflow": tf.__version__,
            **rates,
        }
    if request["what"] == "case":
        return measure_case(request["case"], request["began"], request["repeats"])
    if request["what"] == "again":
        return measure_again(request["case"], request["began"], request.get("window"))
    return measure_replica(request["mode"], request["repeats"])


@exits_cleanly
def main():
    """Parses arguments, measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--case", action="append", help=f"one of {', '.join(CASES)}; repeatable; all if not given"
    )
    parser.add_argument(
        "--replicas", action="store_true", help="compare two replicas on two cores with one on one"
    )
    parser.add_argument(
        "--growth", action="store_true", help=f"also memory at four times the window, of {', '.join(GROWN)}"
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="timed runs of everything; medians are reported"
    )
    parser.add_argument("--out", help="JSON file for all figures")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        from meta_rules.compiler import compile_quickly
        from meta_rules.console import quiet_import

        compile_quickly()
        with quiet_import():
            found = measure(json.loads(arguments.child))
        print(json.dumps(found))
        return
    listed = [name for name in CASES if name not in UNLISTED]
    names = arguments.case or ([] if arguments.replicas and not arguments.growth else listed)
    unknown = [name for name in names if name not in CASES]
    if unknown or arguments.repeats < 1:
        raise UserError(
            f"Unknown case {unknown[0]!r}; known: {', '.join(CASES)}." if unknown else "--repeats >= 1."
        )
    began = time.time()
    results = answer(start_child({"what": "machine"})) | {"cases": {}}
    for name in names:
        try:
            results["cases"][name] = measure_in_children(name, arguments.repeats, arguments.growth)
        except UserError as error:
            results["cases"][name] = {"error": str(error)}
        print(f"measured {name} ({time.time() - began:.0f} s)", file=sys.stderr, flush=True)
        write(arguments.out, results)
    if names:
        print(table(results))
    if arguments.replicas:
        results["replicas"] = measure_replicas(arguments.repeats)
        for name, value in results["replicas"].items():
            print(f"{name}: {value:.2f}")
    write(arguments.out, results)
    if any("error" in case for case in results["cases"].values()):
        raise UserError("A case failed; its error is in the table.")


def write(path, results):
    """The results so far as JSON; nothing without a path."""
    if path:
        from meta_rules.saved_rules import write_atomically

        write_atomically(path, (json.dumps(results, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
