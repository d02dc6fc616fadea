"""Double precision in everything, also in what takes single precision for granted."""

import dataclasses
import inspect

import flax.linen as nn
import jax.numpy as jnp

from jaxmeta.algorithms import composition, generation


class Doubled:
    """`jax.numpy`, in which what asks for float32 gets float64."""

    def __getattr__(self, name):
        return getattr(jnp, "float64" if name == "float32" else name)


def make_everything_in_float64(monkeypatch):
    """Flax's own layers, and our hyper-parameters, are float32 whatever JAX is set to."""
    for module in (composition, generation):
        monkeypatch.setattr(module, "jnp", Doubled())
    for layer in vars(nn).values():
        if isinstance(layer, type) and issubclass(layer, nn.Module) and dataclasses.is_dataclass(layer):
            made = inspect.unwrap(layer.__init__)
            monkeypatch.setattr(made, "__defaults__", tuple(map(_double, made.__defaults__ or ())))
            named = {name: _double(value) for name, value in (made.__kwdefaults__ or {}).items()}
            monkeypatch.setattr(made, "__kwdefaults__", named)
            for field in dataclasses.fields(layer):
                monkeypatch.setattr(field, "default", _double(field.default))  # for what a class made of this one


def _double(default):
    return jnp.float64 if default is jnp.float32 else default
