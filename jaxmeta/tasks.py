"""Finds task distributions by their specification, `NAME` or `NAME:key=value,key=value`."""

import inspect
from importlib import metadata
from typing import Any

from jaxmeta.base import TaskDistribution
from jaxmeta.errors import UsageError, require_known

ENTRY_POINTS = "jaxmeta.tasks"


def available() -> dict[str, str]:
    """Names of the installed task distributions, each with the first line of its documentation."""
    points = metadata.entry_points(group=ENTRY_POINTS)
    return {point.name: (inspect.getdoc(point.load()) or "").split("\n")[0] for point in sorted(points)}


def make(spec: str) -> TaskDistribution:
    """Builds the task distribution that a specification names.

    Args:
      spec: `NAME` or `NAME:key=value,...`, where NAME is an entry point of the group `jaxmeta.tasks`: a function of
        keyword arguments that returns a `TaskDistribution`. A value is read as the type of the argument's default.

    Raises:
      UsageError: an unknown name or option, or a value that cannot be read or is out of range.

    >>> make("grid_navi:size=4").horizon
    15
    """
    name, _, options = spec.partition(":")
    points = {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}
    require_known("--tasks", name, points)
    factory = points[name].load()
    return factory(**_read_options(name, options, factory))._replace(name=spec)


def _read_options(name: str, options: str, factory: Any) -> dict[str, Any]:
    parameters = inspect.signature(factory).parameters
    read = {}
    for option in filter(None, options.split(",")):
        key, equals, text = option.partition("=")
        if not equals:
            raise UsageError(f"--tasks {name} options must be written key=value, got {option!r}.")
        require_known(f"--tasks {name} option", key, parameters)
        read[key] = read_value(f"{name}:{key}", text, type(parameters[key].default))
    return read


def read_value(name: str, text: str, kind: type) -> Any:
    """Reads a value of a known type from the text of the command line.

    Raises:
      UsageError: the text is not of that type.

    >>> read_value("rounds", "3", int), read_value("double", "false", bool), read_value("hidden", "64,64", tuple)
    (3, False, (64, 64))
    """
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind is tuple:
            return tuple(int(part) for part in text.split(",") if part)
        return kind(text)
    except (KeyError, ValueError):
        wanted = {bool: "true or false", tuple: "integers between commas", int: "an integer", float: "a number"}
        raise UsageError(f"{name} must be {wanted.get(kind, kind.__name__)}, got {text!r}.") from None
