"""Pretext tasks of one shape: cut pieces from each image, encode them all with one network, let a head answer.

Rotation, context prediction, jigsaw and counting are this with another way to cut and another head.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ssl_jax import losses
from ssl_jax.core import Aux, Exercise, Init, Key, Method, Weights, keep_extra
from ssl_jax.metrics import Mean
from ssl_jax.models import Network, readers, stack

Scores = dict[str, jax.Array]  # f32[B, ...] or bool[B, ...], unreduced; "loss" is what is minimised


def make_pretext_method(
  encoder: Network,
  head: Network,
  pose: Callable[[Key, jax.Array], Exercise],
  judge: Callable[[jax.Array, jax.Array], Scores],
  *,
  prepare: Callable[[jax.Array], jax.Array] | None = None,
  read: tuple[Callable, Callable] | None = None,
) -> Method:
  """The method that minimises the mean loss of an exercise.

  Args:
    encoder: images f32[B N, h, w, 3] -> features. head: those as [B, N, ...] -> outputs.
    pose: cuts the pieces and knows the answers. judge: (outputs, answers) -> scores, "loss" among them.
    prepare: what `pose` does to the pixels of a piece and evaluation must then do to an image, f32[B, H, W, 3] -> the same.
    read: `encode` and `pyramid`; by default what stands before the head.
  """
  net = stack(encoder, head)
  encode, pyramid = read or readers(encoder)

  def answer(params, model_state, pose_key, images, **training):
    exercise = pose(pose_key, images)
    outputs, model_state = net.apply(Weights(params, model_state), exercise.pieces, **training)
    return judge(outputs, exercise.answers), model_state

  def init(key, batch):
    return Init(*net.init(key, pose(key, batch["image"]).pieces))

  def loss(params, model_state, extra, batch, key):
    pose_key, drop_key = jax.random.split(key)
    scores, model_state = answer(params, model_state, pose_key, batch["image"], train=True, key=drop_key)
    return scores.pop("loss").mean(), Aux(
      model_state, metrics={name: Mean.of(score) for name, score in scores.items()}
    )

  def examine(params, model_state, images):
    scores, _ = answer(params, model_state, jax.random.key(0), images)
    return {
      name: score.astype(jnp.float32).reshape(len(images), -1).mean(1) for name, score in scores.items()
    }

  def prepared(reader: Callable) -> Callable:
    return (
      reader
      if prepare is None
      else lambda params, model_state, images: reader(params, model_state, prepare(images))
    )

  return Method(init, loss, keep_extra, prepared(encode), prepared(pyramid), pose=pose, examine=examine)


def score_classes(logits: jax.Array, answers: jax.Array) -> Scores:
  """Cross-entropy and accuracy of every answer: logits f32[B, M, C], answers i32[B, M]."""
  flat = logits.reshape(-1, logits.shape[-1])
  loss = losses.cross_entropy(flat, answers.ravel()).reshape(answers.shape)
  return {"loss": loss, "accuracy": logits.argmax(-1) == answers}
