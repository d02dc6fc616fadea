"""The adapter of a policy that is what it is: nothing is learned, neither across tasks nor from a round."""

from jaxmeta.core.types import Act, Adapter, Reset


def without_learning(reset: Reset, act: Act, eval_policy: Act) -> Adapter:
    """An `Adapter` whose meta is None and whose `fast` stays as it was at the lifetime's start."""
    return Adapter(lambda key: None, reset, act, eval_policy)
