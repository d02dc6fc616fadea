"""The adapter of a policy that is what it is: nothing is learned, neither across tasks nor from a round."""

from jaxmeta.core.types import Act, Adapter, Begin


def without_learning(begin: Begin, act: Act, exploit: Act) -> Adapter:
    """An `Adapter` whose meta is None and whose `fast` stays as it was at the lifetime's start."""
    return Adapter(lambda key: None, begin, act, exploit)
