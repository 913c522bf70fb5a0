"""Gin: which files and bindings describe a run, and one clear line for whatever is wrong with them."""

import importlib.util
import inspect
import logging
import os
import types
import typing

import gin
from meta_rules.errors import UserError


def configurable(target):
    """Decorator: makes a class known to gin, which then checks simple argument types when it builds one.

    The class itself stays as it is; gin gets a factory. Only arguments annotated with `int`, `float`, `bool`, `str`,
    `tuple`, `dict` or a union of these are checked, and gin may bind only arguments that are named.
    """
    signature = inspect.signature(target)
    named = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]

    def factory(*args, **kwargs):
        try:
            bound = factory.__signature__.bind(*args, **kwargs)
        except TypeError as error:
            raise UserError(f"{target.__name__}: {error}; bind it in a gin file.") from error
        for name, value in bound.arguments.items():
            hint = signature.parameters[name].annotation
            if hint is not inspect.Parameter.empty and not _fits(value, hint):
                raise UserError(
                    f"{target.__name__}.{name} must be {_words(hint)}, got {value!r}; correct the gin binding."
                )
        return target(*args, **kwargs)

    factory.__signature__ = signature.replace(parameters=named)
    factory.__name__ = factory.__qualname__ = target.__name__
    gin.external_configurable(factory, name=target.__name__, module="meta_rules")
    return target


def _members(hint):
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _fits(value, hint):
    simple = (int, float, bool, str, tuple, dict, types.NoneType)
    for member in _members(hint):
        if member not in simple:
            return True
        if member is float and isinstance(value, int | float) and not isinstance(value, bool):
            return True
        if member is int and isinstance(value, int) and not isinstance(value, bool):
            return True
        if member is tuple and isinstance(value, tuple | list):
            return True
        if member in (bool, str, dict, types.NoneType) and isinstance(value, member):
            return True
    return False


def _words(hint):
    names = {"int": "a whole number", "float": "a number", "bool": "True or False", "str": "a string"}
    names |= {"tuple": "a tuple or list", "dict": "a dictionary", "NoneType": "None"}
    return " or ".join(names.get(member.__name__, member.__name__) for member in _members(hint))


def shipped_folders():
    """Where the gin files that come with the package lie: installed inside it, or at the top of a checkout."""
    spec = importlib.util.find_spec("meta_rules.shipped_gin")
    installed = list(spec.submodule_search_locations) if spec else []
    checkout = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "gin")
    # Beside an installed package the folder of that name is the gin library.
    return [folder for folder in (*installed, checkout) if os.path.isfile(os.path.join(folder, "mnist.gin"))]


def find(path):
    """The gin file that a user means: a path, or the name of a shipped file, with or without a leading `gin/`.

    Raises:
      UserError: there is none; the line lists the shipped ones.
    """
    if os.path.isfile(path):
        return path
    name = path[4:] if path.startswith("gin/") else path
    for folder in shipped_folders():
        if os.path.isfile(os.path.join(folder, name)):
            return os.path.join(folder, name)
    known = sorted(
        os.path.relpath(os.path.join(folder, file), top)
        for top in shipped_folders()
        for folder, _, files in os.walk(top)
        for file in files
        if file.endswith(".gin")
    )
    raise UserError(
        f"No gin file {path!r}. Shipped with the package: {', '.join('gin/' + k for k in known)}."
    )


def parse(files, bindings):
    """Reads gin files, then bindings such as `MetaTrainer.meta_steps = 10`; later ones win.

    Raises:
      UserError: a missing file, a syntax error, an unknown name.
    """
    for folder in shipped_folders():
        gin.add_config_file_search_path(folder)
    gin.clear_config()
    paths = [find(path) for path in files]
    # Gin looks for an included file in one place after the other, and logs an error for each where it is not.
    logging.getLogger().addFilter(_not_a_false_alarm)
    try:
        gin.parse_config_files_and_bindings(paths, list(bindings), finalize_config=True)
    except (ValueError, SyntaxError, OSError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(f"Configuration: {_first_line(error)}") from error
    finally:
        logging.getLogger().removeFilter(_not_a_false_alarm)


def _not_a_false_alarm(record):
    return not str(record.msg).startswith("Path not found")


def build(target, *args, **kwargs):
    """Builds a configurable class with gin's bindings; what only now proves wrong is a `UserError` too."""
    try:
        return gin.get_configurable(f"meta_rules.{target.__name__}")(*args, **kwargs)
    except UserError as error:
        raise UserError(_first_line(error)) from error
    except RuntimeError as error:
        if "gin" not in str(error).lower():
            raise
        raise UserError(f"Configuration: {_first_line(error)}") from error


def operative():
    """The bindings in force, as a gin file that reproduces the run."""
    return gin.operative_config_str()


#: What a run's tasks are spread over; it is no part of what the run computes.
_PLACE = "Distribution."


def differences(old):
    """Lines in which the bindings in force differ from those of an earlier run, given its `operative()` text.

    Settings that the earlier program did not have, and that nobody has bound, are no difference; nor is the strategy.
    """

    def lines(text):
        return [
            line
            for line in text.splitlines()
            if line.strip() and not line.startswith(("#", "import", _PLACE))
        ]

    before, now, bound = lines(old), lines(operative()), set(lines(gin.config_str()))
    known = {line.partition(" =")[0] for line in before}
    new = [line for line in now if line not in before]
    return [line for line in new if line in bound or line.partition(" =")[0] in known] + [
        line for line in before if line not in now
    ]


def _first_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Gin adds the chain of calls that led to a binding.
    lines = [line for line in lines if not line.startswith("In call to configurable")]
    return " ".join(lines[:3]) or type(error).__name__
