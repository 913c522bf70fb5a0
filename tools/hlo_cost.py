"""Floating-point operations of a compiled program, counted from the text of its optimised HLO.

TensorFlow has no public cost analysis of a compiled function, but it gives the program's text. What is counted is what XLA
would count, with one difference: the body of a loop counts as often as the loop runs, not once.
"""

import math
import re
from typing import NamedTuple

_HEAD = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_SHAPE = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")
_ELEMENTWISE = set(
    "add subtract multiply divide maximum minimum negate abs exponential exponential-minus-one log log-plus-one logistic "
    "power rsqrt sqrt cbrt tanh sine cosine tan erf floor ceil sign remainder atan2".split()
)
_FLOATS = ("f16", "bf16", "f32", "f64")


class Cost(NamedTuple):
    """Operations of one call.

    Attributes:
      products: of matrix products and convolutions, two a multiply-add.
      other: of elementwise arithmetic on floats and of reductions, one an element.
    """

    products: float
    other: float

    def __add__(self, more):
        return Cost(self.products + more.products, self.other + more.other)

    def times(self, count):
        """The cost of `count` calls."""
        return Cost(self.products * count, self.other * count)


class _Instruction(NamedTuple):
    name: str
    shape: str
    kind: str
    rest: str


def _dimensions(shape):
    """Element type and dimensions of the first array in a shape."""
    kind, sizes = _SHAPE.search(shape).groups()
    return kind, [int(size) for size in sizes.split(",") if size]


def _numbers(text, name):
    found = re.search(rf"{name}=\{{([\d,]*)\}}", text)
    return [int(number) for number in found.group(1).split(",") if number] if found else []


def _attribute(text, name):
    found = re.search(rf"{name}=%?([\w.\-]+)", text)
    return found.group(1) if found else None


class Program:
    """An HLO module from its text, as `tf.function(...).experimental_get_compiler_ir(...)(stage="optimized_hlo")` gives it."""

    def __init__(self, text):
        self._computations, self._entry, self._known = {}, None, {}
        current = None
        for line in text.splitlines():
            head = _HEAD.match(line)
            if head and not line.startswith("HloModule"):
                current = self._computations.setdefault(head.group(1), [])
                self._entry = head.group(1) if line.startswith("ENTRY") else self._entry
            elif current is not None:
                found = _INSTRUCTION.match(line)
                if found:
                    current.append(_Instruction(*found.groups()))

    def cost(self):
        """`Cost` of one call of the program."""
        return self._of_computation(self._entry)

    def _of_computation(self, name):
        if name not in self._known:
            shapes = {item.name: item.shape for item in self._computations[name]}
            costs = [self._of_instruction(item, shapes) for item in self._computations[name]]
            self._known[name] = sum(costs, Cost(0.0, 0.0))
        return self._known[name]

    def _of_instruction(self, item, shapes):
        rest, nothing = item.rest, Cost(0.0, 0.0)
        if item.kind == "while":
            return self._of_computation(_attribute(rest, "body")).times(self._trips(rest))
        if item.kind in ("fusion", "call"):
            return self._of_computation(_attribute(rest, "calls") or _attribute(rest, "to_apply"))
        if item.kind == "conditional":
            found = re.search(r"branch_computations=\{([^}]*)\}", rest)
            names = (
                found.group(1).split(",")
                if found
                else re.findall(r"(?:true|false)_computation=(\S+?),", rest)
            )
            return max((self._of_computation(name.strip(" %")) for name in names), default=nothing)
        if not _SHAPE.search(item.shape):
            return nothing
        kind, sizes = _dimensions(item.shape)
        elements = math.prod(sizes)
        if item.kind in ("dot", "convolution"):
            return Cost(2.0 * elements * self._terms(item, shapes), 0.0)
        if item.kind in ("reduce", "reduce-window") and kind in _FLOATS:
            source = _operand_shapes(rest, shapes)[0]
            return Cost(0.0, float(math.prod(_dimensions(source)[1])))
        if item.kind in _ELEMENTWISE and kind in _FLOATS:
            return Cost(0.0, float(elements))
        return nothing

    def _terms(self, item, shapes):
        """Multiply-adds for each element of a product's result."""
        left, right = (_dimensions(shape)[1] for shape in _operand_shapes(item.rest, shapes)[:2])
        if item.kind == "dot":
            return math.prod(left[axis] for axis in _numbers(item.rest, "lhs_contracting_dims"))
        # All of the kernel but its output channels.
        labels = re.search(r"dim_labels=\w+_(\w+)->", item.rest).group(1)
        return math.prod(right) // right[labels.index("o")]

    def _trips(self, rest):
        known = re.search(r'known_trip_count":\{"n":"(\d+)"', rest)
        if known:
            return int(known.group(1))
        # A loop with a static bound compares its counter with that bound, here or in a fusion of the condition's.
        names, bounds = [_attribute(rest, "condition")], []
        while names:
            for item in self._computations[names.pop()]:
                called = _attribute(item.rest, "calls") or _attribute(item.rest, "to_apply")
                names += [called] if called in self._computations else []
                if item.kind == "constant" and item.shape.startswith(("s32", "s64")):
                    bounds += [int(item.rest.split(")")[0])]
        return max(bounds, default=1)


def _operand_shapes(rest, shapes):
    """Shapes of the operands; the text names them, and in some versions repeats their shapes."""
    inside = rest.split("), ")[0]
    names = re.findall(r"%([\w.\-]+)", inside) or [name.strip() for name in inside.strip("()").split(",")]
    return [shapes[name] for name in names if name in shapes]


def count(function, *arguments, stage="optimized_hlo"):
    """`Cost` of one call of a `tf.function` with `jit_compile=True`; compiles it once more, unless the stage is `hlo`."""
    return Program(function.experimental_get_compiler_ir(*arguments)(stage=stage)).cost()
