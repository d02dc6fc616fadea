"""Where in a user's own code an error comes from."""

import importlib.util
import os
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

INSTALLED = {"site-packages", "dist-packages"}
FRAME = re.compile(r'^  File "(.+)", line (\d+), in ', re.MULTILINE)
"""A line of a traceback, which is all that JAX passes on of an error in a callback."""


def user_line(error: BaseException) -> str | None:
    """The innermost line of a user's own code that an error, or what caused it, was raised through.

    Code of this library, of the standard library and of installed packages is not the user's; neither is what has no
    file. Where a file cannot be parsed it is the line that the parser stopped at.

    Returns:
      `path.py:line`, the path from the current folder if the file lies in there; None where there is no such line.
    """
    chain, cause = [error], error.__cause__
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__
    others = _others()
    for link in reversed(chain):
        lines = [(path, line) for path, line in _lines(link) if _is_own(path, others)]
        if lines:
            path, line = lines[-1]
            return f"{_shown(path)}:{line}"
    return None


def _lines(error: BaseException) -> Iterator[tuple[Path, int]]:
    """Files and lines that an error was raised through, the innermost last."""
    for frame, line in traceback.walk_tb(error.__traceback__):
        yield Path(frame.f_code.co_filename), line
    for name, line in FRAME.findall(str(error)):
        yield Path(name), int(line)
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        yield Path(error.filename), error.lineno


def _others() -> list[Path]:
    """Folders of code that is not a user's."""
    folders = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "scripts")]
    environments = importlib.util.find_spec("jaxmeta_envs")
    folders += [
        Path(__file__).parent.parent,
        *map(Path, (environments and environments.submodule_search_locations) or ()),
    ]
    return [folder.resolve() for folder in folders]


def _is_own(path: Path, others: list[Path]) -> bool:
    path = path.resolve()
    installed = INSTALLED & set(path.parts) or any(path.is_relative_to(folder) for folder in others)
    return path.is_file() and not installed


def _shown(path: Path) -> Path:
    path, here = path.resolve(), Path(os.getcwd()).resolve()
    return path.relative_to(here) if path.is_relative_to(here) else path
