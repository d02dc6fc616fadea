"""The two tiers of the tests: a fast one, which runs unless more is asked for, and all of them."""

import pytest
from hypothesis import HealthCheck, settings

FAST = "fast"
FULL = "full"
EXAMPLES = {FAST: 50, FULL: 1_000}
"""At most so many malformed inputs of each kind."""

for _name, _examples in EXAMPLES.items():
    settings.register_profile(
        _name,
        max_examples=_examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


def choose(config) -> None:
    """Takes the tier that a run asks for: the fast one where `-m` leaves out what is slow."""
    settings.load_profile(FAST if "not slow" in config.option.markexpr else FULL)


def is_full() -> bool:
    """Whether all tests run."""
    return settings.get_current_profile_name() == FULL


def number(full: int, fast: int) -> int:
    """How often something is done, by tier."""
    return full if is_full() else fast


def slow(*cases):
    """Cases of a parametrised test that only the full tier runs."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow) for case in cases]
