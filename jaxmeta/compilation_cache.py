"""Keeps compiled programs between runs, in the user's cache folder."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

SWITCH = "jax_enable_compilation_cache"
"""JAX's own, on by default."""

_log = logging.getLogger(__name__)


def enable() -> None:
    """Turns JAX's persistent compilation cache on; a folder that the user named in JAX's own way stays."""
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    folder = user_cache() / "jaxmeta" / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        _log.warning("Compiled programs are not kept: %r cannot be written (%s).", str(folder), error.strerror)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


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


def user_cache() -> Path:
    """Where this platform keeps a user's caches."""
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    return Path.home() / ".cache"
