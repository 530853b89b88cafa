"""Networks as pure functions. This folder is the only one that imports flax.linen."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from ssl_jax.config.checked import call_checked, nearest
from ssl_jax.core import Weights
from ssl_jax.models import heads, preact, resnet, vit

ENCODERS = {**resnet.ENCODERS, **preact.ENCODERS, **vit.ENCODERS}


class Network(NamedTuple):
  """A linen module as two pure functions."""

  init: Callable[..., Weights]  # (key, inputs, **call) -> Weights
  apply: Callable[
    ..., tuple[Any, Any]
  ]  # (weights, inputs, *, train=False, key=None, **call) -> (output, model_state)
  module: nn.Module | None = None  # its options, for who must know them: a masked autoencoder the patch


def network(module: nn.Module) -> Network:
  """Wraps a module whose `__call__` takes `(inputs, *, train)`; in evaluation the returned state is the given one.

  `key` is what a module draws from in training (drop path, dropout); without one it must draw nothing.
  """

  def init(key: jax.Array, inputs: jax.Array, **call) -> Weights:
    variables = dict(module.init(key, inputs, train=False, **call))
    params = variables.pop("params")
    return Weights(params, variables)

  def apply(
    weights: Weights, inputs: jax.Array, *, train: bool = False, key: jax.Array | None = None, **call
  ):
    variables = {"params": weights.params, **weights.model_state}
    if not train:
      return module.apply(variables, inputs, train=False, **call), weights.model_state
    rngs = None if key is None else {"drop": key}
    return module.apply(variables, inputs, train=True, mutable=list(weights.model_state), rngs=rngs, **call)

  return Network(init, apply, module)


def stack(encoder: Network, head: Network) -> Network:
  """head(encoder(images)); parameters and state are dicts with the keys "encoder" and "head".

  Images [B, N, H, W, C], the pieces of a pretext task, are encoded as one batch of B N; the head gets them as [B, N, ...].
  """

  def part(weights: Weights, name: str) -> Weights:
    return Weights(weights.params[name], weights.model_state[name])

  def encode(trunk: Weights, images: jax.Array, **call):
    *lead, height, width, channels = images.shape
    features, state = encoder.apply(trunk, images.reshape(-1, height, width, channels), **call)
    return features.reshape(*lead, *features.shape[1:]), state

  def init(key: jax.Array, images: jax.Array) -> Weights:
    encoder_key, head_key = jax.random.split(key)
    trunk = encoder.init(encoder_key, images.reshape(-1, *images.shape[-3:]))
    top = head.init(head_key, encode(trunk, images)[0])
    return Weights(
      {"encoder": trunk.params, "head": top.params}, {"encoder": trunk.model_state, "head": top.model_state}
    )

  def apply(weights: Weights, images: jax.Array, *, train: bool = False, key: jax.Array | None = None):
    keys = (None, None) if key is None else jax.random.split(key)
    features, trunk = encode(part(weights, "encoder"), images, train=train, key=keys[0])
    output, top = head.apply(part(weights, "head"), features, train=train, key=keys[1])
    return output, {"encoder": trunk, "head": top}

  return Network(init, apply)


def split(encoder: Network, layer: str) -> tuple[Network, Network]:
  """(trunk, branch): a ResNet up to `layer`, images -> f32[B, h, w, C], and what follows it, that map -> f32[B, D].

  Several branches may stand on one trunk: each has weights of its own.
  Raises: ValueError if the encoder is no ResNet or has nothing behind a layer of that name.
  """
  module = encoder.module
  known = module.layers()[:-1] if isinstance(module, (resnet.ResNet, preact.PreResNet)) else ()
  if layer not in known:
    raise ValueError(
      f"config.method.branch is {layer!r}, but "
      + (
        f"a branch leaves this encoder at one of {', '.join(known)}"
        if known
        else "only a ResNet can be split; use '', or config.encoder.name='resnet18'"
      )
    )
  trunk, branch = ({"until": layer}, {"since": layer})
  return tuple(
    Network(functools.partial(encoder.init, **part), functools.partial(encoder.apply, **part), module)
    for part in (trunk, branch)
  )


def last_map(encoder: Network) -> Network:
  """The same encoder up to its last map: images -> f32[B, h, w, C]."""

  def apply(weights: Weights, images: jax.Array, **call):
    maps, model_state = encoder.apply(weights, images, pyramid=True, **call)
    return list(maps.values())[-1], model_state

  return Network(encoder.init, apply, encoder.module)


def readers(encoder: Network) -> tuple[Callable, Callable]:
  """`encode` and `pyramid` of a method whose network is `stack(encoder, head)`: the head is left out."""

  def encode(params, model_state, images, **call):
    return encoder.apply(Weights(params["encoder"], model_state["encoder"]), images, **call)[0]

  return encode, functools.partial(encode, pyramid=True)


def factory(name: str) -> Callable[..., nn.Module]:
  """The encoder called `name`; raises ValueError with the nearest known names."""
  if name not in ENCODERS:
    raise ValueError(f"config.encoder.name: no encoder is called {name!r}{nearest(name, ENCODERS)}")
  return ENCODERS[name]


def make(name: str, **options) -> Network:
  """An image encoder: f32[B, H, W, 3] in [0, 1] -> f32[B, D]; with `pyramid=True` a dict of f32 maps by layer.

  Args:
    name: one of ENCODERS; options: its keyword arguments, see `resnet.ResNet` and `vit.ViT`.
  Raises: ValueError for an unknown name or option, naming the nearest known ones.
  """
  return network(call_checked(factory(name), options, "config.encoder"))


__all__ = [
  "ENCODERS",
  "Network",
  "factory",
  "heads",
  "last_map",
  "make",
  "network",
  "readers",
  "split",
  "stack",
]
