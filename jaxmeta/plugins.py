"""Finds what other code brings: installed packages through entry points, a user's own as `package.module:function`."""

import importlib
import os
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

from jaxmeta.errors import UsageError, require, require_known, told


def entry_points(group: str) -> dict[str, metadata.EntryPoint]:
    """Installed entry points of a group, by name."""
    return {point.name: point for point in sorted(metadata.entry_points(group=group))}


def import_function(argument: str, path: str) -> Callable[..., Any]:
    """Imports a function by the path `package.module:function`, from the current folder too.

    Args:
      argument: what the path was given as, for the sentence that refuses it.
      path: where the function is.

    Raises:
      UsageError: there is no such module, it raises an error or ends the program, or there is no such function in it.

    >>> import_function("--tasks", "jaxmeta.tasks:available").__name__
    'available'
    """
    module_name, _, name = path.partition(":")
    require(not module_name.startswith("."), argument, "name a module by its whole path", path)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a console script does not look there, unlike `python -m`
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        rule = f"{argument} must name a module that can be imported"
        raise UsageError(f"{rule}, got {path!r} ({told(error).rstrip('.')}).") from error
    require_known(
        f"{argument} {module_name}:", name, [known for known, value in vars(module).items() if callable(value)]
    )
    return getattr(module, name)
