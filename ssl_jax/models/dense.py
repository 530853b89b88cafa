"""A dense layer whose gradient XLA's CPU backend computes as fast as its forward pass."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

PRODUCT = "product"  # by this name a remat policy keeps a layer's output: the rule below hides the product from jax's own policies


class Dense(nn.Module):
  """[..., K] -> [..., features], Xavier-uniform kernel, zero bias: nn.Dense to its callers and in its parameters."""

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernel = self.param("kernel", nn.initializers.xavier_uniform(), (x.shape[-1], self.features), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
    rows = dense(
      x.astype(self.dtype).reshape(-1, x.shape[-1]), kernel.astype(self.dtype), bias.astype(self.dtype)
    )
    return checkpoint_name(rows, PRODUCT).reshape(*x.shape[:-1], self.features)


@jax.custom_vjp
def dense(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
  """[M, K] @ [K, N] + [N] -> [M, N].

  The gradient of the kernel is one product with both factors as they lie. jax's own rule makes its transpose, for which
  XLA on CPU copies the incoming gradient, computing what produced it (the derivative of GELU, say) once for each copy.
  """
  return x @ kernel + bias[None]


def _forward(x, kernel, bias):
  return dense(x, kernel, bias), (x, kernel)


def _backward(saved, gradient):
  x, kernel = saved
  # Three products read it: on CPU it is written once. An accelerator fuses what made it into each of them.
  gradient = lax.platform_dependent(gradient, cpu=lax.optimization_barrier, default=lambda g: g)
  return (
    lax.dot_general(gradient, kernel, (((1,), (1,)), ((), ()))),
    lax.dot_general(x, gradient, (((0,), (0,)), ((), ()))),
    gradient.sum(0),
  )


dense.defvjp(_forward, _backward)
