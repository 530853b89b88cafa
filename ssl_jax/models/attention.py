"""Multi-head self-attention, with a gradient of its own."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.models import patches
from ssl_jax.models.dense import Dense


@jax.custom_vjp
def attend(query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None) -> jax.Array:
  """softmax(query key^T + bias) value, of arrays [B, heads, T, D] and [1, heads, T, T]; softmax in float32.

  The gradient of the logits subtracts the mean over keys as the product of the output and its gradient, so
  that the gradient of the weights, [B, heads, T, T], is not an array in memory (Dao et al. 2022, appendix B).
  """
  return _attend(query, key, value, bias)[0]


def _attend(query, key, value, bias):
  logits = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32)
  weights = jax.nn.softmax(logits if bias is None else logits + bias)
  return jnp.einsum("bhqk,bhkd->bhqd", weights.astype(value.dtype), value), weights


def _attend_forward(query, key, value, bias):
  out, weights = _attend(query, key, value, bias)
  return out, (query, key, value, bias, weights, out)


def _attend_backward(saved, gradient):
  query, key, value, bias, weights, out = saved
  mean = (gradient.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1, keepdims=True)
  of_weights = jnp.einsum("bhqd,bhkd->bhqk", gradient, value, preferred_element_type=jnp.float32)
  of_logits = weights * (of_weights - mean)
  narrow = of_logits.astype(query.dtype)
  return (
    jnp.einsum("bhqk,bhkd->bhqd", narrow, key),
    jnp.einsum("bhqk,bhqd->bhkd", narrow, query),
    jnp.einsum("bhqk,bhqd->bhkd", weights.astype(value.dtype), gradient),
    None if bias is None else of_logits.sum(0, keepdims=True),
  )


attend.defvjp(_attend_forward, _attend_backward)


class Attention(nn.Module):
  """Multi-head self-attention over [B, T, D]; softmax in float32.

  `relative`, if given, is the pair of arrays that `patches.relative_bias` takes.
  """

  heads: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, relative: tuple[jax.Array, jax.Array] | None = None) -> jax.Array:
    batch, length, width = x.shape
    qkv = jnp.split(Dense(3 * width, dtype=self.dtype, name="qkv")(x), 3, axis=-1)
    # [B, heads, T, D]: twice as fast on CPU as with the heads axis behind T.
    query, key, value = (part.reshape(batch, length, self.heads, -1).transpose(0, 2, 1, 3) for part in qkv)
    bias = None if relative is None else patches.relative_bias(*relative)[None]
    out = attend(query * (width // self.heads) ** -0.5, key, value, bias)
    return Dense(width, dtype=self.dtype, name="out")(out.transpose(0, 2, 1, 3).reshape(batch, length, width))
