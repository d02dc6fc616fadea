"""What a run of the tests costs: processor time by test, and how many programs are compiled."""

import heapq
import resource

import jax
import pytest

SHOWN = 10
COMPILED = "/jax/core/compile/backend_compile_duration"
READ = "/jax/compilation_cache/cache_hits"


def processor_seconds() -> float:
    """Of this process and of its children that have ended, user and system."""
    usage = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in usage)


class Account:
    """A plugin that keeps the account of one process, and adds up those of xdist's workers."""

    def __init__(self, config):
        self.config = config
        self.asked = self.read = 0
        self.tests = []
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)
        jax.monitoring.register_event_listener(self._on_event)

    def _on_duration(self, event, seconds, **about):
        self.asked += event == COMPILED

    def _on_event(self, event, **about):
        self.read += event == READ

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item, nextitem):
        """Times a test with its fixtures."""
        before = processor_seconds()
        result = yield
        self.tests.append((processor_seconds() - before, item.nodeid))
        return result

    def pytest_sessionfinish(self, session):
        """Hands a worker's account over."""
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["account"] = [self.asked, self.read, heapq.nlargest(SHOWN, self.tests)]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node, error):
        """Adds a worker's account; one that crashed has left none."""
        asked, read, tests = getattr(node, "workeroutput", {}).get("account", (0, 0, []))
        self.asked, self.read = self.asked + asked, self.read + read
        self.tests += map(tuple, tests)

    def pytest_terminal_summary(self, terminalreporter):
        """Shows the sums."""
        terminalreporter.section("dearest tests, in seconds of processor time")
        for seconds, name in heapq.nlargest(SHOWN, self.tests):
            terminalreporter.write_line(f"{seconds:8.1f} {name}")
        terminalreporter.write_line(f"{self.asked - self.read} programs compiled, {self.read} read from the cache")
