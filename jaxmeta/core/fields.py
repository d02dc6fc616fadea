"""Checks of what was read from a file, field by field: small checks, and checks put together of them.

A check takes the name that a value goes by and the value, and raises `UsageError` where it is of the wrong kind.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from jaxmeta.core.errors import as_kind, require, require_finite

Check = Callable[[str, Any], None]
NONE: Mapping[str, Check] = MappingProxyType({})
LARGEST_COUNT = 2**63 - 1


def text(name: str, value: Any) -> None:
    """A string."""
    as_kind(name, value, str)


def number(name: str, value: Any) -> None:
    """A finite number."""
    require_finite(name, as_kind(name, value, float))


def flag(name: str, value: Any) -> None:
    """True or false."""
    as_kind(name, value, bool)


def whole(low: int, high: int = LARGEST_COUNT) -> Check:
    """An integer of a range."""

    def check(name: str, value: Any) -> None:
        is_one = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        require(is_one, name, f"be an integer from {low} to {high}", value)

    return check


def listed(check: Check, what: str) -> Check:
    """A list of at least one of what passes a check."""

    def check_all(name: str, value: Any) -> None:
        require(isinstance(value, list) and len(value) > 0, name, f"be a list of {what}", value)
        for entry in value:
            check(name, entry)

    return check_all


numbers = listed(number, "numbers")
"""A list of at least one number."""


def nullable(check: Check) -> Check:
    """None, or what passes a check."""
    return lambda name, value: None if value is None else check(name, value)


def record(required: Mapping[str, Check], optional: Mapping[str, Check] = NONE, others: Check | None = None) -> Check:
    """An object with fields of these names; `others` is what all further ones must pass, if anything.

    >>> record({"seed": whole(0)})("'config.json'", {"seed": -1})
    Traceback (most recent call last):
    jaxmeta.core.errors.UsageError: 'config.json' seed must be an integer from 0 to 9223372036854775807, got -1.
    """
    checks = {**required, **optional}

    def check(name: str, value: Any) -> None:
        require(isinstance(value, dict), name, "hold an object", value)
        missing = [field for field in required if field not in value]
        require(not missing, name, f"hold {', '.join(required)}", f"one without {', '.join(missing)}")
        for field, entry in value.items():
            if check_field := checks.get(field, others):
                check_field(f"{name} {field if field in checks else repr(field)}", entry)

    return check
