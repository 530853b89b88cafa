"""Loss functions. They return one unreduced value per example; the caller masks, sums and divides once."""

from __future__ import annotations

import jax
import jax.numpy as jnp

ROUNDING = 1e-5  # cosines of vectors of unit norm that differ by less than this are equal


def unit(x: jax.Array) -> jax.Array:
  """x / max(|x|, 1e-6) over the last axis, as TensorFlow's l2_normalize, which clips the square at 1e-12."""
  return x * jax.lax.rsqrt(jnp.maximum((x * x).sum(-1, keepdims=True), 1e-12))


def info_nce(query: jax.Array, keys: jax.Array, negatives: jax.Array, *, temperature: float):
  """Cross-entropy of picking each query's own key among the negatives.

  Only one [B, K] array of logits is stored: the positive logit enters by logaddexp with the normaliser, not
  by concatenation.

  Args:
    query, keys: f32[B, D], unit norm; row i of each is one image. Keys receive no gradient.
    negatives: f32[K, D], unit norm; receives no gradient.
    temperature: positive; 0.07 in MoCo v1, 0.2 in v2.
  Returns: (loss f32[B] in nats, hit bool[B]: whether the positive logit is larger than every negative one,
    by more than rounding). A network that maps all images to one point has no hit.
  Raises: ValueError if the widths D differ, with the shapes.
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
  # The positive logit is a sum of products and the negative ones are a matrix product, which is rounded
  # differently (on TPU to bfloat16), so equal vectors do not give equal logits. The largest negative is
  # therefore computed again as the positive is.
  largest = (query * negatives[negative.argmax(-1)]).sum(-1) / temperature
  return jnp.logaddexp(positive, others) - positive, positive > largest + ROUNDING / temperature


def nt_xent(pairs: jax.Array, *, temperature: float):
  """Normalised temperature-scaled cross-entropy of picking each view's partner among all other views.

  The two views of an image are adjacent, so that a batch that is sharded over devices need not be moved.

  Args:
    pairs: f32[B, 2, D], any norm; normalised here. Gradient flows through negatives too.
    temperature: positive; 0.1 for ImageNet.
  Returns: (loss f32[B, 2] in nats, hit bool[B, 2]: whether the logit of the partner is larger than that of
    every other view, by more than rounding). A network that maps all images to one point has no hit. The mean
    of the loss is the paper's L; the released code reports 2 L.
  Source: Chen et al. 2020, eq. 1. The sum in the denominator excludes only the view itself.
  """
  views = unit(pairs).reshape(-1, pairs.shape[-1])  # rows 2i and 2i + 1 are views of one image
  index = jnp.arange(views.shape[0])
  logits = jnp.where(index[:, None] == index[None, :], -jnp.inf, (views / temperature) @ views.T)
  partner = jnp.take_along_axis(logits, (index ^ 1)[:, None], axis=1)[:, 0]
  loss = jax.nn.logsumexp(logits, axis=-1) - partner
  hit = (logits >= partner[:, None] - ROUNDING / temperature).sum(-1) == 1  # the partner itself
  return loss.reshape(-1, 2), hit.reshape(-1, 2)


def cross_entropy(logits: jax.Array, labels: jax.Array, *, smoothing: float = 0.0) -> jax.Array:
  """Softmax cross-entropy with label smoothing: f32[B] in nats.

  Args:
    logits: f32[B, C].
    labels: i32[B] in [0, C).
    smoothing: the fraction of the target that is spread evenly over all classes.
  """
  log_p = jax.nn.log_softmax(logits)
  own = jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]
  return -(1 - smoothing) * own - smoothing * log_p.mean(-1)


def pixel_cross_entropy(
  logits: jax.Array, labels: jax.Array, *, ignore: int = 255
) -> tuple[jax.Array, jax.Array]:
  """Softmax cross-entropy of every pixel that has a class.

  Only one array of the size of the logits is stored, of which there is 1.3 GB for a batch of eight
  images of 512 x 512 pixels and 150 classes: the label's logit is a masked sum and not an indexed element,
  so that both passes are fused.

  Args:
    logits: [B, H, W, C] of a floating-point type; the loss is computed in float32.
    labels: integers [B, H, W], in [0, C) or `ignore`.
    ignore: the value of pixels without a class.
  Returns: (loss f32[B, H, W] in nats, 0 where the pixel has no class; bool[B, H, W]: the pixel has a class).
    Labels out of range, such as the classes of ADE20K before 1 is subtracted, make the loss nan.
  """
  logits, labels = logits.astype(jnp.float32), labels.astype(jnp.int32)
  valid = labels != ignore
  own = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) == labels[..., None]
  loss = jax.nn.logsumexp(logits, axis=-1) - jnp.where(own, logits, 0.0).sum(-1)
  known = (labels >= 0) & (labels < logits.shape[-1])
  return jnp.where(valid, jnp.where(known, loss, jnp.nan), 0.0), valid


def pixel_logistic(logits: jax.Array, labels: jax.Array, *, ignore: int = 255) -> tuple[jax.Array, jax.Array]:
  """Logistic loss of every pixel that is labelled as object or background: ln(1 + exp(-y z)), y = 1 or -1.

  Args:
    logits: f32[B, H, W]; positive means object.
    labels: integers [B, H, W]: 0 is the background, `ignore` no label, any other value the object.
    ignore: the value of pixels without a label.
  Returns: (loss f32[B, H, W] in nats, 0 where the pixel has no label; bool[B, H, W]: the pixel has a label).
  Source: Pathak et al. 2017, section 4; Pinheiro et al. 2015 (DeepMask), section 3.2.
  """
  valid = labels != ignore
  signs = jnp.where(labels == 0, -1.0, 1.0)
  return jnp.where(valid, jax.nn.softplus(-signs * logits), 0.0), valid


def patch_statistics(patches: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(mean, sqrt(unbiased variance + 1e-6)) over the numbers of each patch, both f32[B, N, 1].

  Args:
    patches: f32[B, N, P], P > 1.
  Source: He et al. 2022, "normalized pixels", and the released code, which divides the variance by P - 1.
  """
  return patches.mean(-1, keepdims=True), jnp.sqrt(patches.var(-1, keepdims=True, ddof=1) + 1e-6)


def patch_error(predicted: jax.Array, target: jax.Array) -> jax.Array:
  """Mean squared error over the numbers of each patch: f32[B, N, P], f32[B, N, P] -> f32[B, N]."""
  return jnp.square(predicted - target).mean(-1)


def channel_mean(patches: jax.Array) -> jax.Array:
  """Each image's mean colour as a patch: f32[B, N, P], three channels innermost -> f32[B, 1, P]."""
  mean = patches.reshape(patches.shape[0], -1, 3).mean(1)
  return jnp.tile(mean, (1, patches.shape[-1] // 3))[:, None]
