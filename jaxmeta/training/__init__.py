"""Training runs: compiled chunks of meta-steps, and a host that logs, saves and stops between them.

`jobs` checks a run's options, `loop` runs it, `chunks` is the compiled part, `seeds` trains several learners in one
program. `run_directory`, `checkpoints`, `metrics_log` and `bookkeeping` write the run directory, and `loggers` send log
points to trackers; `learner_files` has trained learners as files, which `pretrained` ships and `hub` fetches; `export`
makes optax optimizers; `distributed` joins several processes, and `interrupts` handles signals.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
