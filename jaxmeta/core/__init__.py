"""The nouns of the engine, and what everything else stands on.

`types` holds agents, adapters, tasks and states as bundles of pure functions, `rollout` is the one place that steps an
environment, `spec` describes one to agents, and `scenes` how a task is drawn. `config` has the records of
configurations, and `settings` names what is in them. `trees`, `scans`, `sharding`, `costs`, `compilation` and
`compilation_cache` work on JAX's programs. `tasks`, `registry`, `contracts` and `fields` find and check users' own
code and files; `errors` and `synonyms` word refusals.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
