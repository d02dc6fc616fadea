"""Flax modules, each written for one example; the caller vmaps.

`networks` has those of Q-learners and policies, `memories` the networks with memory (recurrent, with external
memory, attentive), `encoders` what reads a set of transitions, `generators` what puts out the parameters of another
network; `pictures` has the convolution for
observations that are pictures, `layers` the parts.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
