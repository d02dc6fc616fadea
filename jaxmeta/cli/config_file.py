"""What a file says of a run to be trained: a run's `config.json`, or a short YAML or TOML written by hand."""

from pathlib import Path
from typing import Any

import msgspec

from jaxmeta.core.errors import UsageError, Words, require, require_known
from jaxmeta.training.run_directory import require_possible

READ = (
    "algorithm",
    "tasks",
    "settings",
    "seed",
    "seeds",
    "sweep",
    "meta_steps",
    "log_every",
    "checkpoint_every",
    "keep",
)
READ += ("evaluate_every", "on_nonfinite", "on_write_error", "evaluate", "baselines")
"""What is taken from a file."""
PASSED_OVER = ("versions", "python", "device", "devices")
"""What a run's `config.json` says of where it ran."""


def read(path: Path) -> dict[str, Any]:
    """What a file holds, by the names of `training.jobs.prepare`.

    Raises:
      UsageError: it cannot be read, or holds something else.
    """
    decoders = {".json": msgspec.json.decode, ".yaml": msgspec.yaml.decode, ".toml": msgspec.toml.decode}
    kind = {".yml": ".yaml"}.get(path.suffix, path.suffix)
    require(kind in decoders, "--config", "end in .json, .yaml or .toml", str(path))
    require_possible("--config", path)
    require(path.is_file(), "--config", "be a file", str(path))
    try:
        plain = msgspec.json.encode(decoders[kind](path.read_bytes()))  # names are text, and nothing holds itself
        content = msgspec.json.decode(plain)
    except (msgspec.MsgspecError, OSError, ValueError, OverflowError, RecursionError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError("--config", f"be {kind[1:].upper()}", Words(repr(str(path))), reason=reason) from None
    require(isinstance(content, dict), "--config", "hold names with their values", content)
    for name in content:
        require_known(f"--config {path.name}", name, [*READ, *PASSED_OVER])
    settings = content.get("settings", {})
    require(isinstance(settings, dict), f"--config {path.name} settings", "hold names with their values", settings)
    return {name: value for name, value in content.items() if name in READ}
