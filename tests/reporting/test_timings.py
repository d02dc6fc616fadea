"""Where the time of a command goes."""

import io

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from jaxmeta.reporting import timings


def rows(text):
    return {line.split()[0]: [float(word) for word in line.split()[1:]] for line in text.splitlines()[1:]}


def test_stages_tell_what_was_traced_and_compiled_in_them():
    out = io.StringIO()
    with timings.reported(Console(file=out, width=100)):
        timings.begin("compiling")
        jax.jit(lambda x: jax.lax.fori_loop(0, 3, lambda _, y: jnp.sin(jnp.tanh(y @ y)), x)).lower(
            jnp.ones((8, 8))
        ).compile()
        timings.begin("compiling")  # the same stage goes on
        timings.begin("idling")
    reported = rows(out.getvalue())
    assert list(reported) == ["preparing", "compiling", "idling", "all"]
    assert reported["idling"][:3] == [0, 0, 0]
    assert reported["all"][-1] == pytest.approx(sum(row[-1] for row in list(reported.values())[:-1]), abs=0.2)
    timings.begin("afterwards")  # tells nobody


def test_what_is_traced_inside_of_something_counts_once(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(timings.time, "perf_counter", lambda: now[0])
    stage = timings.Stage("any")
    for end, duration in ((101.0, 0.5), (102.0, 0.5), (103.0, 3.0), (105.0, 1.0)):
        now[0] = end
        stage.note("tracing", duration)
    assert stage.total("tracing") == pytest.approx(4.0)
