"""Training runs: compiled chunks of meta-steps, and a host that logs, saves and stops between them.

`jobs` checks what is asked, `loop` runs it, `chunks` is the compiled part, `seeds` trains several learners in one
program. `run_directory`, `checkpoints`, `metrics_log` and `bookkeeping` keep what a run leaves, and `loggers` tell it
to trackers; `pretrained` holds learners that come with the library, `export` takes learned optimizers out of it;
`distributed` and `interrupts` meet the world.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
