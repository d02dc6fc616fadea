"""Ctrl-C and SIGTERM, so that a run ends between two meta-steps, with its work saved."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NOTICE = b"\nStopping at the next log point; once more stops at once.\n"


class Interrupted(KeyboardInterrupt):
    """A run was stopped by a signal, and saved. Its text says where."""


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Yields a flag, `interrupted()`, that the first signal raises; a second signal is a KeyboardInterrupt.

    Outside the main thread, where Python delivers no signals, the flag stays down.
    """
    received: list[int] = []

    def on_signal(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        os.write(2, NOTICE)  # a print here could meet another one half-way through

    with _handling(on_signal):
        yield lambda: bool(received)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Makes SIGTERM end the program the way Ctrl-C does, by a KeyboardInterrupt."""

    def on_signal(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    with _handling(on_signal):
        yield


@contextlib.contextmanager
def _handling(handler: Callable[[int, Any], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
