"""Self-training: what a network learns at test time from the classes that it predicts itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ssl_jax.abilities import Adaptable, Masking
from ssl_jax.models.batch_statistics import with_batch_statistics
from ssl_jax.ttt.inner_loop import CLEAN
from ssl_jax.ttt.predictor import Predictor, clean_copies


def self_training(
  predictor: Predictor, *, share: float = 0.0, confidence: float = 0.9, several: bool = False
) -> Adaptable:
  """The cross-entropy of the copies with the network's own classes for the sample; all parameters adapt.

  The classes are those that the network of this step predicts for the sample without augmentation. Where it
  gives none of them a probability above `confidence`, it learns nothing. Of a segmenter, the augmentation
  must leave every pixel where it is.

  Args:
    several: whether the rows of a batch are copies of several samples, such as the frames of a window.
  Raises: ValueError, while tracing, for a segmenter and copies of another size than the sample.
  Source: Lee 2013, "Pseudo-label".
  """
  mixed = with_batch_statistics(predictor.predict, share)
  alone = with_batch_statistics(predictor.predict, share, each=True)

  def make_task(key, batch):
    return {name: leaf for name, leaf in batch.items() if not name.startswith(CLEAN)}, clean_copies(batch)

  def loss(params, model_state, task):
    copies, clean = task
    samples = clean if several else jax.tree.map(lambda leaf: leaf[:1], clean)  # else all rows are the same
    guess = jax.nn.softmax(alone(params, model_state, samples))  # of which labels have no gradient
    return _where_sure(mixed(params, model_state, copies), guess, confidence)

  return Adaptable(
    make_task=make_task,
    loss=loss,
    predict=alone,
    trainable=("*",),
    params=predictor.params,
    whole=share > 0,
    clean=True,
  )


def masked_self_training(predictor: Predictor, masking: Masking, *, confidence: float = 0.9) -> Adaptable:
  """The cross-entropy of the predictions for masked copies with the classes that the network predicts for the
  whole copies; the encoder adapts, and the head of the classes does not.

  A copy is augmented once and then masked, so that any augmentation leaves pixels and classes aligned.
  Source: Wang et al. 2023, "Test-time training on video streams", section 4.3: pixels of a frame with a
    probability above `confidence`, and masks as of the reconstruction.
  """

  def make_task(key, batch):
    return masking.hide(key, batch), batch

  def loss(params, model_state, task):
    hidden, whole = task
    guess = jax.nn.softmax(predictor.predict(jax.lax.stop_gradient(params), model_state, whole))
    return _where_sure(predictor.predict(params, model_state, hidden), guess, confidence)

  return Adaptable(
    make_task=make_task,
    loss=loss,
    predict=predictor.predict,
    trainable=masking.trainable,
    params=predictor.params,
  )


def _where_sure(logits: jax.Array, guess: jax.Array, confidence: float) -> jax.Array:
  """f32[B]: the mean cross-entropy where a class of the guess is sure; 0 where none is.

  Args:
    logits: f32[B, ..., C].
    guess: f32[B or 1, ..., C], probabilities.
  """
  if guess.shape[1:] != logits.shape[1:]:
    raise ValueError(
      f"objective 'self_training' has predictions {list(logits.shape[1:])} for the augmented copies, but "
      f"classes {list(guess.shape[1:])} for the sample; set config.augment to one that leaves every pixel "
      "where it is, or use a network with masks of its own, such as 'joint_segmentation'"
    )
  labels = jnp.broadcast_to(guess.argmax(-1), logits.shape[:-1])
  sure = jnp.broadcast_to(guess.max(-1) > confidence, labels.shape).astype(jnp.float32)
  values = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)[..., 0]
  axes = tuple(range(1, values.ndim))
  return (values * sure).sum(axes) / jnp.maximum(sure.sum(axes), 1)
