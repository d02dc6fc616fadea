"""Log points for trackers of experiments; each is an extra of the package, imported on use."""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxmeta.core.errors import UsageError, require_known
from jaxmeta.core.settings import flattened

PROJECT = "jaxmeta"
OnLog = Callable[[dict[str, Any]], None]


@contextlib.contextmanager
def logging_to(name: str | None, config: Mapping[str, Any], run_name: str) -> Iterator[OnLog]:
    """Yields what takes log points to a tracker; None: nowhere.

    Args:
      name: `wandb`, `mlflow` or `trackio`.
      config: of the run, which the tracker shows.
      run_name: what it calls the run.

    Raises:
      UsageError: there is no such tracker, or its package is not installed.
    """
    if name is None:
        yield lambda record: None
        return
    require_known("--log", name, TRACKERS)
    try:
        package = importlib.import_module(name)
    except ImportError:
        raise UsageError("--log", f"have its package installed, pip install 'jaxmeta[{name}]'", name) from None
    facts = {path: value for path, value in flattened(config).items() if not isinstance(value, list | tuple)}
    with TRACKERS[name](package, facts, run_name) as log:
        yield lambda record: log(_scalars(record), record["meta_step"])


@contextlib.contextmanager
def _wandb(wandb: Any, facts: Mapping[str, Any], run_name: str) -> Iterator[Callable[..., Any]]:
    run = wandb.init(project=PROJECT, name=run_name, config=facts)
    try:
        yield lambda metrics, step: run.log(metrics, step=step)
    finally:
        run.finish()


@contextlib.contextmanager
def _mlflow(mlflow: Any, facts: Mapping[str, Any], run_name: str) -> Iterator[Callable[..., Any]]:
    mlflow.set_experiment(PROJECT)
    with mlflow.start_run(run_name=run_name):
        mlflow.log_params(facts)
        yield lambda metrics, step: mlflow.log_metrics(metrics, step=step)


@contextlib.contextmanager
def _trackio(trackio: Any, facts: Mapping[str, Any], run_name: str) -> Iterator[Callable[..., Any]]:
    trackio.init(project=PROJECT, name=run_name, config=dict(facts))
    try:
        yield lambda metrics, step: trackio.log(metrics, step=step)
    finally:
        trackio.finish()


TRACKERS = {"wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}


def _scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a log point, but for its own."""
    return {name: value for name, value in record.items() if isinstance(value, int | float) and name != "meta_step"}
