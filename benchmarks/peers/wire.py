"""How a worker talks: a JSON request a line on stdin, a JSON answer a line on stdout. Standard library alone."""

import json
import os
import resource
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def serve(handlers: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """Answers requests until stdin ends; `do` names the handler, the rest are its arguments.

    Whatever else is printed goes to stderr, and an exception is answered as `error`.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = handlers[request.pop("do")](**request)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def peak_megabytes() -> float:
    """Peak resident memory of this process, without what its parent had before it was started."""
    status = Path("/proc/self/status")
    if status.is_file():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
