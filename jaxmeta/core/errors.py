"""Errors: one sentence that names the argument, the rule and the value."""

import difflib
import math
import numbers
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any

from jaxmeta.core import synonyms

LARGEST_INT, LARGEST_FLOAT = 2**31 - 1, 3.4028234663852886e38
"""What arrays of int32 and float32 hold."""
FEW, NEAREST = 8, 5
"""How many names a refusal lists, all of them or the nearest."""
SHOWN_BY = {
    **dict.fromkeys(("algorithm", "--tasks", "--pretrained"), "`jaxmeta list`"),
    **dict.fromkeys(("setting", "--set"), "`jaxmeta list ALGORITHM`"),
    "gymnax:id": "`gymnax.registered_envs`",
}
"""By argument, what shows all the names that it takes."""

_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxlist, _REPR.maxtuple, _REPR.maxdict = 4, 20, 20, 20
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 200


TRACEBACK = "Traceback (most recent call last)"
"""What JAX says of an error in a callback holds one."""


class UsageError(ValueError):
    """Invalid input, as one sentence. The command line prints it and exits with status 2.

    >>> print(UsageError("rounds", "be at least 1", 0), UsageError("--seed", "be an integer", "x", hint="Why?"))
    rounds must be at least 1, got 0. --seed must be an integer, got 'x'. Why?
    """

    def __init__(self, name: str, rule: str, value: Any, *, reason: str = "", hint: str = ""):
        """Takes the parts of the sentence.

        Args:
          name: of the argument.
          rule: what it must be or do.
          value: what was given; `Words` where that is said and not shown.
          reason: why it breaks the rule, in brackets after the value.
          hint: a sentence that follows.
        """
        super().__init__(name, rule, value, reason, hint)
        self.name, self.rule, self.value, self.reason, self.hint = name, rule, value, reason, hint

    def __reduce__(self):
        return _usage_error, self.args

    def __str__(self) -> str:
        reason, hint = f" ({self.reason})" if self.reason else "", f" {self.hint}" if self.hint else ""
        return f"{self.name} must {self.rule}, got {shown(self.value)}{reason}.{hint}"


def _usage_error(name: str, rule: str, value: Any, reason: str, hint: str) -> UsageError:
    return UsageError(name, rule, value, reason=reason, hint=hint)


class Words(str):
    """What a sentence says of a value, in place of showing it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


NONE = Words("none")


class NonFiniteError(RuntimeError):
    """A number stopped being finite while training; nothing that came after it was kept."""


class StorageError(RuntimeError):
    """What a run has done could not be written, or cannot be read again."""


def require(condition: bool, name: str, rule: str, value: Any) -> None:
    """Raises `UsageError` unless the condition holds."""
    if not condition:
        raise UsageError(name, rule, value)


def shown(value: Any) -> str:
    """A value as Python writes it, of which a sentence shows no more than its length allows."""
    return _REPR.repr(value)


def reported(error: BaseException) -> str:
    r"""The kind of anybody's error, and the first line of what it says; the last one if that is a traceback.

    >>> reported(ValueError("two lines\nof text")), reported(AssertionError())
    ('ValueError: two lines', 'AssertionError')
    """
    text = error.msg if isinstance(error, SyntaxError) else str(error)  # whose text also says where
    line = text.strip().split("\n")[-1 if TRACEBACK in text else 0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def as_kind(name: str, value: Any, kind: type) -> Any:
    """The value as a plain bool, int, float, str or tuple of ints, where it is one in all but its class.

    NumPy's numbers are, an integer stands for a number, and a list for a tuple; whatever else is refused, and so are
    numbers that int32 or float does not hold.

    Raises:
      UsageError: the value is not of that kind, or too large for it.

    >>> as_kind("rounds", 3, int), as_kind("discount", 1, float), as_kind("hidden", [8, 8], tuple)
    (3, 1.0, (8, 8))
    """
    if kind is tuple:
        require(isinstance(value, list | tuple), name, "be a tuple of integers", value)
        return tuple(as_kind(name, entry, int) for entry in value)
    stands_for, rule = {
        bool: (bool, "be True or False"),
        int: (numbers.Integral, "be an integer"),
        float: (numbers.Real, "be a number"),
        str: (str, "be a string"),
    }[kind]
    is_one = isinstance(value, stands_for) and (kind is bool or not isinstance(value, bool))
    require(is_one, name, rule, value)
    if kind is int:
        require(abs(value) <= LARGEST_INT, name, f"be at most {LARGEST_INT} in size", value)
    try:
        return kind(value)
    except OverflowError:
        raise UsageError(name, f"be at most {LARGEST_FLOAT:.1e} in size", value) from None


def require_finite(name: str, value: float) -> None:
    """Refuses NaN and the infinities, which pass every other comparison unnoticed, and what float32 does not hold.

    Raises:
      UsageError: the value is one of these.
    """
    require(math.isfinite(value), name, "be finite", value)
    require(abs(value) <= LARGEST_FLOAT, name, f"be at most {LARGEST_FLOAT:.1e} in size", value)


def require_known(
    name: str, value: str, known: Iterable[str], *, meant: Sequence[str] = (), see: str | None = None
) -> None:
    """Refuses a name that is not among the known ones, and says which one is nearest.

    Args:
      name: what takes the value.
      value: the name that was given.
      known: those that there are; of more than `FEW` the sentence lists the `NEAREST`.
      meant: what the value stands for, where the caller knows; else what the field calls a setting, or a similar name.
      see: what shows all the known ones; `SHOWN_BY` knows it of many arguments.

    Raises:
      UsageError: the name is not among them.

    >>> require_known("--set", "gamma", ["discount", "rounds"])
    Traceback (most recent call last):
    jaxmeta.core.errors.UsageError: --set must be one of discount, rounds, got 'gamma'. Did you mean 'discount'?
    """
    known = sorted(known)
    if value in known:
        return
    meant = meant or synonyms.meant(synonyms.SETTINGS, value, known)
    meant = meant or difflib.get_close_matches(value, known, n=1, cutoff=0.4)
    listed, more = known, ""
    if len(known) > FEW:
        near = [*meant, *difflib.get_close_matches(value, known, n=NEAREST, cutoff=0.0), *known]
        listed = list(dict.fromkeys(name for name in near if name in known))[:NEAREST]
        see = see or SHOWN_BY.get(name)
        more = f" and {len(known) - NEAREST} more" + (f" ({see} shows all)" if see else "")
    hint = f"Did you mean {' or '.join(map(repr, meant))}?" if meant else ""
    raise UsageError(name, f"be one of {', '.join(listed)}{more}", value, hint=hint)
