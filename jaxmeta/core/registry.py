"""Finds what other code brings: installed packages through entry points, a user's own as `package.module:name`."""

import importlib
import inspect
import os
import sys
from importlib import metadata
from typing import Any

from jaxmeta.core.errors import UsageError, reported, require, require_known


def entry_points(group: str) -> dict[str, metadata.EntryPoint]:
    """Installed entry points of a group, by name."""
    return {point.name: point for point in sorted(metadata.entry_points(group=group))}


def is_function(found: Any) -> bool:
    """Whether it can be called, and is no class, whose call would make one of whatever it is a class of."""
    return callable(found) and not inspect.isclass(found)


def import_object(argument: str, path: str, kind: type = type(None)) -> Any:
    """Imports a function, or an object of a kind, by the path `package.module:name`, from the current folder too.

    Args:
      argument: what the path was given as, for the sentence that refuses it.
      path: where it is.
      kind: what may stand there in place of a function.

    Raises:
      UsageError: there is no such module, it raises an error or ends the program, or it has no such name and
        kind.

    >>> import_object("--tasks", "jaxmeta.core.tasks:available", tuple).__name__
    'available'
    """
    module_name, _, name = path.partition(":")
    require(not module_name.startswith("."), argument, "name a module by its whole path", path)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a console script does not look there, unlike `python -m`
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        reason = reported(error).rstrip(".")
        raise UsageError(argument, "name a module that can be imported", path, reason=reason) from error
    fitting = {known for known, value in vars(module).items() if is_function(value) or isinstance(value, kind)}
    require_known(f"{argument} {module_name}:", name, fitting)
    return getattr(module, name)
