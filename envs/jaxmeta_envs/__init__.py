"""Task distributions for meta-reinforcement learning: families of gymnax environments whose parameters are the task.

`make(spec)` builds one by its name and options, such as `grid_navi:goals=split`. Importing this package loads neither
JAX nor gymnax, which takes seconds and starts the accelerator.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxmeta.core.tasks import make_tasks as make

__all__ = ["make"]


def __getattr__(name: str) -> Any:
    if name != "make":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jaxmeta.core.tasks import make_tasks as make

    return make


def __dir__() -> list[str]:
    return [*globals(), *__all__]
