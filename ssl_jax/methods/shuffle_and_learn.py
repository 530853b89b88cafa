"""Shuffle and learn: tell whether three frames of a clip are in the order in which they were taken."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.abilities import PretextExamples, PretextTask
from ssl_jax.core import DataSpec, Method, Weights
from ssl_jax.methods.pretext import pretext_template
from ssl_jax.models import Network, heads, network
from ssl_jax.video.tuples import FRAMES, TRIPLETS

ABILITIES = pretext_template.ABILITIES


def make(encoder: Network, data: DataSpec, *, negatives: float = 0.75, hidden: int = 0) -> Method:
  """Two-way classification of three frames, which one network encodes: in order (1) or not (0).

  A clip is five frames a, b, c, d, e in order: mined ones (`ssl-jax prepare tuples` and
  config.host.name='stored_frames'), or frames at equal distances (config.host.name='frames', count=5). In
  order are (b, c, d) and (d, c, b); not in order are (b, a, d), (b, e, d) and their reverses. As only the
  middle frame differs, the ends give nothing away. The augmentation must treat all frames of a clip alike.

  Without a hidden layer, the score is a sum of one term for each frame. Such a score cannot compare the
  middle frame with the ends: in a clip of a uniform movement, with the ends (0, 2) and (2, 4), it cannot
  accept the middles 1 and 3 and reject 3 and 1.

  In evaluation, all six triplets of a clip are scored. "balanced_accuracy" is the mean of the accuracies of
  the two classes, where a triplet counts as in order if its probability exceeds 1 - `negatives`, that of the
  training data. "accuracy" is that of the plain decision, at the training data's share of both classes;
  without having learned anything it is max(negatives, 1 - negatives).

  Args:
    encoder: the image network.
    data: must have "clip" uint8[5, H, W, 3].
    negatives: fraction of the triplets in training that are not in order.
    hidden: width of a hidden layer on the three features; 0: none, as published.
  Raises: ValueError for data without such clips, or options out of range.
  Source: Misra, Zitnick, Hebert 2016, sections 3 and 4.1; the hidden layer is ours.
  """
  _check(data, negatives, hidden)
  head = network(heads.Joined(2, hidden))
  bound = functools.partial
  method = pretext_template.make_pretext_method(
    encoder, head, bound(_make_task, negatives), pretext_template.score_classes, element="clip"
  )
  task = method.abilities[PretextTask]._replace(evaluate_task=bound(_evaluate, encoder, head, negatives))
  return method._replace(abilities={**method.abilities, PretextTask: task})


def _make_task(negatives: float, key: jax.Array, clips: jax.Array) -> PretextExamples:
  """Draws one triplet of each clip f32[B, 5, H, W, 3]."""
  class_key, side_key, turn_key = jax.random.split(key, 3)
  count = len(clips)
  disordered = jax.random.bernoulli(class_key, negatives, (count,))
  late, turned = (jax.random.bernoulli(k, 0.5, (count,)) for k in (side_key, turn_key))
  choose = lambda mask, yes, no: jnp.where(mask.reshape(-1, 1, 1, 1), clips[:, yes], clips[:, no])
  outer = choose(late, 4, 0)
  middle = jnp.where(disordered.reshape(-1, 1, 1, 1), outer, clips[:, 2])
  inputs = jnp.stack([choose(turned, 3, 1), middle, choose(turned, 1, 3)], 1)
  targets = (~disordered).astype(jnp.int32)[:, None]
  return PretextExamples(inputs, targets, ("first", "middle", "last"), "1: in order")


def _evaluate(encoder: Network, head: Network, negatives: float, params, model_state, clips):
  """The scores of each clip f32[B, 5, H, W, 3] over its six triplets, each f32[B]; see `make`."""
  weights = lambda name: Weights(params[name], model_state[name])
  features, _ = encoder.apply(weights("encoder"), clips.reshape(-1, *clips.shape[2:]))
  features = features.reshape(len(clips), FRAMES, -1)
  triplets = np.array(TRIPLETS)
  joined = features[:, triplets[:, :3]].reshape(-1, 3, features.shape[-1])
  logits = head.apply(weights("head"), joined)[0].reshape(len(clips), len(TRIPLETS), 2)
  targets = jnp.broadcast_to(jnp.asarray(triplets[:, 3], jnp.int32)[None], logits.shape[:2])
  plain = pretext_template.score_classes(logits, targets)
  in_order = logits[..., 1] - logits[..., 0] > math.log((1 - negatives) / negatives)
  balanced = in_order == (targets == 1)
  scores = {name: _weighted(values, negatives) for name, values in plain.items()}
  return {"balanced_accuracy": _weighted(balanced, 0.5), **scores}


def _weighted(values: jax.Array, share: float) -> jax.Array:
  """f32[B]: the mean of scores [B, 6] of the triplets, where those not in order have this share."""
  labels = np.array(TRIPLETS)[:, 3]
  weights = np.where(labels == 0, share / (labels == 0).sum(), (1 - share) / labels.sum())
  return (values.astype(jnp.float32) * jnp.asarray(weights, jnp.float32)[None]).sum(1)


def _check(data: DataSpec, negatives: float, hidden: int) -> None:
  clip = data.elements.get("clip")
  if clip is None or clip.shape[0] != FRAMES:
    delivered = ", ".join(data.elements) if clip is None else f"clips of {clip.shape[0]} frames"
    raise ValueError(
      f"method 'shuffle_and_learn' needs clips of {FRAMES} frames, but config.host.name delivers only "
      f"{delivered}; use config.host.name='stored_frames' for mined ones, or 'frames' and "
      f"config.host.count={FRAMES}"
    )
  if not 0 < negatives < 1:
    raise ValueError(f"config.method.negatives is {negatives}; use a fraction between 0 and 1, such as 0.75")
  if hidden < 0:
    raise ValueError(f"config.method.hidden is {hidden}; use a width, or 0 for no hidden layer")
