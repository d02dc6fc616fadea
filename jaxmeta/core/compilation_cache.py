"""Keeps compiled programs between runs, in the user's cache folder."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import platformdirs
from jax.experimental.compilation_cache import compilation_cache

from jaxmeta.core.errors import as_kind

SWITCH = "jax_enable_compilation_cache"
"""JAX's own, on by default."""
FOLDER = "jax_compilation_cache_dir"
"""JAX's own, None unless the user has named one."""

_log = logging.getLogger(__name__)
_wanted = True


def use_compilation_cache(enabled: bool = True) -> None:
    """Says whether compiled programs are kept in the user's cache folder from now on; they are unless this says no.

    `jaxmeta.train` and `jaxmeta.evaluate` turn JAX's persistent compilation cache on when they are first called. A
    folder that the user named in JAX's own way, by `JAX_COMPILATION_CACHE_DIR` or `jax_compilation_cache_dir`, stays as
    it is, whatever this says.

    Args:
      enabled: whether to keep them.
    """
    global _wanted
    _wanted = as_kind("enabled", enabled, bool)
    if enabled:
        enable()
    elif _named() == str(_folder()):
        jax.config.update(FOLDER, None)
        compilation_cache.reset_cache()


def enable() -> None:
    """Turns JAX's persistent compilation cache on, unless the user has said no or named a folder in JAX's own way."""
    if not _wanted or _named():
        return
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        _log.warning("Compiled programs are not kept: %r cannot be written (%s).", str(folder), error.strerror)
        return
    jax.config.update(FOLDER, str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    compilation_cache.reset_cache()  # else JAX goes by what was so when it first compiled


@contextlib.contextmanager
def bypassed() -> Iterator[None]:
    """Compiles everything anew and keeps none of it, also where the user named a cache in JAX's own way."""
    enabled = getattr(jax.config, SWITCH)
    _set_enabled(False)
    try:
        yield
    finally:
        _set_enabled(enabled)


def _set_enabled(enabled: bool) -> None:
    jax.config.update(SWITCH, enabled)
    compilation_cache.reset_cache()  # else JAX goes by what was so when it first compiled


def _named() -> str | None:
    """The folder that JAX keeps programs in: one that the user has named, or `_folder`."""
    return getattr(jax.config, FOLDER)


def _folder() -> Path:
    return user_cache() / "compiled"


def user_cache() -> Path:
    """Our folder among a user's caches, where this platform keeps them."""
    return platformdirs.user_cache_path("jaxmeta", appauthor=False)
