"""Flax modules, each written for one example; the caller vmaps.

`networks` has what a Q-learner or a policy is made of, `memories` the networks that remember (recurrent, with external
memory, attentive), `encoders` what reads a set of transitions, `generators` what puts out the parameters of another
network; `layers` are what they are made of.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
