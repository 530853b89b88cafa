"""Networks as pure functions. No other folder imports flax.linen."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from ssl_jax.config.checked import call_checked, nearest
from ssl_jax.core import Weights
from ssl_jax.models import alexnet, heads, pixel_encoder, preact, resnet, vit

ENCODERS = {
  **resnet.ENCODERS,
  **preact.ENCODERS,
  **vit.ENCODERS,
  **alexnet.ENCODERS,
  **pixel_encoder.ENCODERS,
}


class Network(NamedTuple):
  """A linen module as two pure functions."""

  init: Callable[..., Weights]  # (key, inputs, **call) -> Weights
  # apply: (weights, inputs, *, train=False, key=None, **call) -> (output, model_state)
  apply: Callable[..., tuple[Any, Any]]
  module: nn.Module | None = None  # for callers that need its options, such as a transformer's patch size


def network(module: nn.Module) -> Network:
  """Wraps a module whose `__call__` takes `(inputs, *, train)`.

  `apply` with `train=False` returns the model state unchanged. Its `key` is the source of the module's random
  numbers in training (drop path, dropout); a module that draws none needs no key.
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
    for option in ("drop_path", "dropout"):
      if key is None and getattr(module, option, 0):
        raise ValueError(
          f"config.encoder.{option} is {getattr(module, option)}, but this method draws no random numbers "
          "for its encoder; use 0"
        )
    rngs = None if key is None else {"drop": key}
    return module.apply(variables, inputs, train=True, mutable=list(weights.model_state), rngs=rngs, **call)

  return Network(init, apply, module)


def stack(encoder: Network, head: Network) -> Network:
  """The network head(encoder(images)); its parameters and state are dicts with the keys "encoder" and "head".

  Images of shape [B, N, H, W, C], the N pieces of a pretext task, are encoded as one batch of B N images, and
  the head receives features of shape [B, N, ...]. Features may be any pytree of such arrays.
  """

  def part(weights: Weights, name: str) -> Weights:
    return Weights(weights.params[name], weights.model_state[name])

  def encode(trunk: Weights, images: jax.Array, **call):
    *lead, height, width, channels = images.shape
    features, state = encoder.apply(trunk, images.reshape(-1, height, width, channels), **call)
    return jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), features), state

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


def frozen(encoder: Network) -> Network:
  """The encoder in evaluation mode at all times; no gradient reaches its weights."""

  def apply(
    weights: Weights, inputs: jax.Array, *, train: bool = False, key: jax.Array | None = None, **call
  ):
    return encoder.apply(jax.lax.stop_gradient(weights), inputs, **call)

  return Network(encoder.init, apply, encoder.module)


def frozen_norms(encoder: Network) -> Network:
  """A ResNet whose norms use their running statistics at all times and get no gradient; the rest is trained.

  detectron2's FrozenBN. A norm's parameters are the leaves called "scale" and "bias".
  """

  def apply(
    weights: Weights, inputs: jax.Array, *, train: bool = False, key: jax.Array | None = None, **call
  ):
    def stop(path, leaf):
      return jax.lax.stop_gradient(leaf) if path[-1].key in ("scale", "bias") else leaf

    params = jax.tree_util.tree_map_with_path(stop, weights.params)
    return encoder.apply(Weights(params, weights.model_state), inputs, **call)

  return Network(encoder.init, apply, encoder.module)


def split(encoder: Network, layer: str) -> tuple[Network, Network]:
  """Splits a ResNet or a PixelEncoder after `layer`.

  Several branches can share one trunk; each has its own weights.

  Returns: (trunk: images -> f32[B, h, w, C], branch: the trunk's output -> f32[B, D]).
  Raises: ValueError if the encoder is neither or has no layer of this name before its last one.
  """
  module = encoder.module
  kinds = (resnet.ResNet, preact.PreResNet, pixel_encoder.PixelEncoder)
  known = module.layers()[:-1] if isinstance(module, kinds) else ()
  if layer not in known:
    raise ValueError(
      f"config.method.branch is {layer!r}, but "
      + (
        f"this encoder can be split after one of {', '.join(known)}"
        if known
        else "only a ResNet can be split; use '', or config.encoder.name='resnet18'"
      )
    )
  trunk, branch = (
    Network(functools.partial(encoder.init, **part), functools.partial(encoder.apply, **part), module)
    for part in ({"until": layer}, {"since": layer})
  )
  return trunk, branch


def last_map(encoder: Network, layer: str = "") -> Network:
  """The encoder without its pooling: images -> the last feature map, or that of `layer`, f32[B, h, w, C].

  Raises: ValueError, when traced, if there is no such layer.
  """

  def apply(weights: Weights, images: jax.Array, **call):
    maps, model_state = encoder.apply(weights, images, pyramid=True, **call)
    if layer and layer not in maps:
      raise ValueError(f"config.method.layer: the encoder has no map {layer!r}{nearest(layer, maps)}")
    return maps[layer or list(maps)[-1]], model_state

  return Network(encoder.init, apply, encoder.module)


def readers(encoder: Network) -> tuple[Callable, Callable]:
  """(encode, pyramid) for a method whose network is `stack(encoder, head)`; both leave the head out.

  Both take (params, model_state, images). `encode` returns f32[B, D], `pyramid` a dict of maps f32[B, h, w,
  C].
  """

  def encode(params, model_state, images, **call):
    return encoder.apply(Weights(params["encoder"], model_state["encoder"]), images, **call)[0]

  return encode, functools.partial(encode, pyramid=True)


def factory(name: str) -> Callable[..., nn.Module]:
  """The constructor of an encoder. Raises: ValueError for an unknown name, with the nearest known ones."""
  if name not in ENCODERS:
    raise ValueError(f"config.encoder.name: no encoder is called {name!r}{nearest(name, ENCODERS)}")
  return ENCODERS[name]


def make(name: str, **options) -> Network:
  """An image encoder: f32[B, H, W, 3] in [0, 1] -> f32[B, D].

  With `pyramid=True` its `apply` returns all feature maps, a dict of f32[B, h, w, C] by layer.

  Args:
    name: one of ENCODERS.
    options: keyword arguments of the encoder; see `resnet.ResNet`, `preact.PreResNet`, `vit.ViT`
      and `alexnet.AlexNet`.
  Raises: ValueError for an unknown name or option, with the nearest known ones.
  """
  return network(call_checked(factory(name), options, "config.encoder"))


__all__ = [
  "ENCODERS",
  "Network",
  "factory",
  "frozen",
  "frozen_norms",
  "heads",
  "last_map",
  "make",
  "network",
  "pixel_encoder",
  "readers",
  "split",
  "stack",
]
