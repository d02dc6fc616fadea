"""Keeps compiled programs between runs, in the user's cache folder."""

import logging
import os
import sys
import tempfile
from pathlib import Path

import jax

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


def user_cache() -> Path:
    """Where this platform keeps a user's caches."""
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    return Path.home() / ".cache"
