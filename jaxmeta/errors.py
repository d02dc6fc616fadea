"""What can go wrong, told in one sentence that names the argument, the rule and the value."""

import difflib
import math
from collections.abc import Iterable
from typing import Any


class UsageError(ValueError):
    """A mistake in what was asked. The command line prints it and exits with status 2."""


class NonFiniteError(RuntimeError):
    """A number stopped being finite while training; nothing that came after it was kept."""


def require(condition: bool, name: str, rule: str, value: Any) -> None:
    """Raises `UsageError("{name} must {rule}, got {value}.")` unless the condition holds."""
    if not condition:
        raise UsageError(f"{name} must {rule}, got {value!r}.")


def require_finite(name: str, value: float) -> None:
    """Refuses NaN and the infinities, which pass every other comparison unnoticed."""
    require(math.isfinite(value), name, "be finite", value)


def require_known(name: str, value: str, known: Iterable[str]) -> None:
    """Refuses a name that is not among the known ones, and says which one is nearest."""
    known = sorted(known)
    if value in known:
        return
    nearest = difflib.get_close_matches(value, known, n=1, cutoff=0.4)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise UsageError(f"{name} must be one of {', '.join(known)}, got {value!r}.{hint}")
