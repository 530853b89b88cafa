"""Losses: one value an example, unreduced; the caller masks, sums and divides once."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def unit(x: jax.Array) -> jax.Array:
  """x / max(|x|, 1e-6) along the last axis (TensorFlow's l2_normalize: the square is clipped at 1e-12)."""
  return x * jax.lax.rsqrt(jnp.maximum((x * x).sum(-1, keepdims=True), 1e-12))


def info_nce(query: jax.Array, keys: jax.Array, negatives: jax.Array, *, temperature: float):
  """Cross-entropy of picking each query's own key among the negatives.

  Only one [B, K] array of logits is made: the positive joins through the normaliser instead of a concatenation.

  Args:
    query, keys: f32[B, D], unit norm; row i of each is one image. Keys receive no gradient.
    negatives: f32[K, D], unit norm; receives no gradient.
    temperature: positive; 0.07 in MoCo v1, 0.2 in v2.
  Returns: (loss f32[B] in nats, hit bool[B]: the positive scores above every negative).
  Raises: ValueError if widths differ, naming the shapes.
  Source: He et al. 2020, eq. 1.
  """
  if not query.shape[-1] == keys.shape[-1] == negatives.shape[-1]:
    raise ValueError(
      f"query {query.shape}, keys {keys.shape} and negatives {negatives.shape} differ in width"
    )
  keys, negatives = jax.lax.stop_gradient((keys, negatives))
  positive = (query * keys).sum(-1) / temperature
  negative = (query / temperature) @ negatives.T
  others = jax.nn.logsumexp(negative, axis=-1)
  return jnp.logaddexp(positive, others) - positive, positive > negative.max(-1)


def nt_xent(pairs: jax.Array, *, temperature: float):
  """Normalised temperature-scaled cross-entropy: each view picks its partner among all other views of the batch.

  The two views of an image lie side by side, so that a batch sharded over devices stays where it is.

  Args:
    pairs: f32[B, 2, D], any norm; normalised here. Gradient flows through negatives too.
    temperature: positive; 0.1 for ImageNet.
  Returns: (loss f32[B, 2] in nats, hit bool[B, 2]: the partner scores above every other view). Their mean is the
    paper's L; the released code reports 2 L.
  Source: Chen et al. 2020, eq. 1; the denominator leaves out only the view itself.
  """
  views = unit(pairs).reshape(-1, pairs.shape[-1])  # 2i and 2i + 1 are one image
  index = jnp.arange(views.shape[0])
  logits = jnp.where(index[:, None] == index[None, :], -jnp.inf, (views / temperature) @ views.T)
  partner = jnp.take_along_axis(logits, (index ^ 1)[:, None], axis=1)[:, 0]
  loss = jax.nn.logsumexp(logits, axis=-1) - partner
  return loss.reshape(-1, 2), (partner >= logits.max(-1)).reshape(-1, 2)


def cross_entropy(logits: jax.Array, labels: jax.Array, *, smoothing: float = 0.0) -> jax.Array:
  """f32[B] nats: softmax cross-entropy; `smoothing` spreads that share of the target evenly over all classes.

  Args:
    logits: f32[B, C]; labels: i32[B] in [0, C).
  """
  log_p = jax.nn.log_softmax(logits)
  own = jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]
  return -(1 - smoothing) * own - smoothing * log_p.mean(-1)


def patch_statistics(patches: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(mean, deviation) f32[B, N, 1] of each patch's numbers: the deviation is sqrt(unbiased variance + 1e-6).

  Args:
    patches: f32[B, N, P], P > 1.
  Source: He et al. 2022, "normalized pixels", and released code, whose variance is divided by P - 1.
  """
  return patches.mean(-1, keepdims=True), jnp.sqrt(patches.var(-1, keepdims=True, ddof=1) + 1e-6)


def patch_error(predicted: jax.Array, target: jax.Array) -> jax.Array:
  """f32[B, N]: mean squared error over the numbers of each patch, f32[B, N, P]."""
  return jnp.square(predicted - target).mean(-1)


def channel_mean(patches: jax.Array) -> jax.Array:
  """f32[B, 1, P]: each image's mean colour over patches f32[B, N, P] with three channels last, as one patch."""
  mean = patches.reshape(patches.shape[0], -1, 3).mean(1)
  return jnp.tile(mean, (1, patches.shape[-1] // 3))[:, None]
