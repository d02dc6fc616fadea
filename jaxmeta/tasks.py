"""Finds task distributions by their specification: `NAME` or `package.module:function`, and `:key=value,key=value`."""

import inspect
from collections.abc import Callable
from typing import Any

from jaxmeta import contracts, plugins
from jaxmeta.base import TaskDistribution
from jaxmeta.errors import UsageError, as_kind, require, require_known, shown

ENTRY_POINTS = "jaxmeta.tasks"
READERS: dict[type, tuple[str, Callable[[str], Any]]] = {
    bool: ("true or false", lambda text: {"true": True, "false": False}[text.lower()]),
    int: ("an integer", int),
    float: ("a number", float),
    str: ("a string", str),
    tuple: ("integers between commas", lambda text: [int(part) for part in text.split(",") if part]),
}
"""How text is read as each type, and what it must be."""


def available() -> dict[str, str]:
    """Names of the installed task distributions, each with the first line of its documentation."""
    points = plugins.entry_points(ENTRY_POINTS)
    return {name: (inspect.getdoc(point.load()) or "").split("\n")[0] for name, point in points.items()}


def make(spec: str) -> TaskDistribution:
    """Builds the task distribution that a specification names.

    Args:
      spec: `NAME` or `NAME:key=value,...`. NAME is an entry point of the group `jaxmeta.tasks`, or
        `package.module:function`: a function of keyword arguments that returns a `TaskDistribution`. A value is read as
        the type of the argument's default.

    Raises:
      UsageError: an unknown name or option, a value that cannot be read or is out of range, or a function that returns
        something else.

    >>> make("grid_navi:size=4").horizon
    15
    """
    name, options = _parts(spec)
    if is_imported(spec):
        factory = plugins.import_function("--tasks", name)
        return contracts.require_tasks(name, factory(**_read_options(name, options, factory)))._replace(name=spec)
    points = plugins.entry_points(ENTRY_POINTS)
    require_known("--tasks", name, points)
    factory = points[name].load()
    return factory(**_read_options(name, options, factory))._replace(name=spec)


def is_imported(spec: str) -> bool:
    """Whether a specification names a function which `make` imports by its path.

    >>> is_imported("grid_navi:size=4"), is_imported("my.module:tasks:size=4")
    (False, True)
    """
    return ":" in _parts(spec)[0]


def _parts(spec: str) -> tuple[str, str]:
    """Name and options.

    >>> _parts("grid_navi:size=4"), _parts("my.module:tasks"), _parts("my.module:tasks:size=4")
    (('grid_navi', 'size=4'), ('my.module:tasks', ''), ('my.module:tasks', 'size=4'))
    """
    name, _, rest = spec.partition(":")
    function, _, options = rest.partition(":")
    is_path = function.isidentifier() and name not in plugins.entry_points(ENTRY_POINTS)
    return (f"{name}:{function}", options) if is_path else (name, rest)


def _read_options(name: str, options: str, factory: Any) -> dict[str, Any]:
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError:
        raise UsageError(f"{name} must be a function that tells its arguments, got {shown(factory)}.") from None
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty:
            raise UsageError(f"{name} must have a default for each of its arguments, got none for {key!r}.")
    read = {}
    for option in filter(None, options.split(",")):
        key, equals, text = option.partition("=")
        if not equals:
            raise UsageError(f"--tasks {name} options must be written key=value, got {shown(option)}.")
        require_known(f"--tasks {name} option", key, parameters)
        require(key not in read, f"--tasks {name} options", "name each option once", key)
        read[key] = read_value(f"{name}:{key}", text, type(parameters[key].default))
    return read


def read_value(name: str, text: str, kind: type) -> Any:
    """Reads a value of a known type from the text of the command line.

    Raises:
      UsageError: the text is not of that type, or the type is none that text is read as.

    >>> read_value("rounds", "3", int), read_value("double", "false", bool), read_value("hidden", "64,64", tuple)
    (3, False, (64, 64))
    """
    require(kind in READERS, name, "have a default that is a bool, int, float, str or tuple of integers", kind.__name__)
    wanted, read = READERS[kind]
    try:
        value = read(text)
    except (KeyError, ValueError):
        raise UsageError(f"{name} must be {wanted}, got {shown(text)}.") from None
    return as_kind(name, value, kind)
