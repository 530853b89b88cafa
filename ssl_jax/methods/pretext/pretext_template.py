"""The common structure of most pretext tasks: make several inputs from each image, encode all of them with
one network, and predict the answer with a head.

Rotation, context prediction, jigsaw and counting differ in how the inputs are made and in the head.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ssl_jax import losses
from ssl_jax.abilities import PretextExamples, PretextTask, Pyramid
from ssl_jax.augment import image_digest
from ssl_jax.core import Aux, Init, Key, Method, Weights, keep_extra
from ssl_jax.metrics import Mean
from ssl_jax.models import Network, readers, stack

Scores = dict[str, jax.Array]  # each f32[B, ...] or bool[B, ...], not reduced; "loss" is minimised
ABILITIES = (Pyramid, PretextTask)


def make_pretext_method(
  encoder: Network,
  head: Network,
  make_task: Callable[[Key, jax.Array], PretextExamples],
  score: Callable[[jax.Array, jax.Array], Scores],
  *,
  prepare: Callable[[jax.Array], jax.Array] | None = None,
  read: tuple[Callable, Callable] | None = None,
  element: str = "image",
) -> Method:
  """Builds the method that minimises the mean loss of a pretext task.

  Args:
    encoder: images f32[B N, h, w, 3] -> features.
    head: those features as [B, N, ...] -> outputs.
    make_task: (key, images f32[B, H, W, 3], or what `element` names) -> examples.
    score: (outputs, targets) -> scores, which must contain "loss".
    prepare: the pixel transform that `make_task` applies to every input, f32[B, H, W, 3] -> the same shape.
      In evaluation it is applied to whole images. None: no transform.
    read: the functions `encode` and `Pyramid.maps`; None: those of the encoder.
    element: the entry of the augmented batch that the task is made from.
  """
  net = stack(encoder, head)
  encode, maps = (_after(prepare, reader) for reader in read or readers(encoder))

  def scores_of(params, model_state, examples, **training):
    outputs, model_state = net.apply(Weights(params, model_state), examples.inputs, **training)
    return score(outputs, examples.targets), model_state

  def init(key, batch):
    return Init(*net.init(key, make_task(key, batch[element]).inputs))

  def loss(params, model_state, extra, batch, key):
    task_key, drop_key = jax.random.split(key)
    examples = make_task(task_key, batch[element])
    scores, model_state = scores_of(params, model_state, examples, train=True, key=drop_key)
    value = scores.pop("loss").mean()
    return value, Aux(model_state, metrics={name: Mean.of(values) for name, values in scores.items()})

  def evaluate_task(params, model_state, images):
    scores, _ = scores_of(params, model_state, make_each_task(make_task, images))
    return {name: mean_by_image(values) for name, values in scores.items()}

  abilities = {Pyramid: Pyramid(maps), PretextTask: PretextTask(make_task, evaluate_task, element)}
  return Method(init, loss, keep_extra, encode, abilities)


def make_each_task(
  make_task: Callable[[Key, jax.Array], PretextExamples], images: jax.Array
) -> PretextExamples:
  """Makes the task of each image with a key that depends on its pixels only, without names for pictures.

  What is drawn for an image in evaluation then does not depend on its place in a batch, on the size of the
  batch, or on the devices.
  """

  def one(image: jax.Array) -> tuple[jax.Array, jax.Array]:
    made = make_task(image_digest.key_of(jax.random.key(0), image), image[None])
    return made.inputs[0], made.targets[0]

  return PretextExamples(*jax.vmap(one)(images), ())


def score_classes(logits: jax.Array, targets: jax.Array) -> Scores:
  """Returns the cross-entropy in nats and the accuracy of every answer, each [B, M].

  Args:
    logits: f32[B, M, C].
    targets: i32[B, M].
  """
  flat = logits.reshape(-1, logits.shape[-1])
  loss = losses.cross_entropy(flat, targets.ravel()).reshape(targets.shape)
  return {"loss": loss, "accuracy": logits.argmax(-1) == targets}


def mean_by_image(values: jax.Array) -> jax.Array:
  """f32[B]: the mean over the values of each image, f32 or bool [B, ...]."""
  return values.astype(jnp.float32).reshape(len(values), -1).mean(1)


def _after(prepare: Callable | None, reader: Callable) -> Callable:
  """Returns a function that applies the reader to prepared images."""
  if prepare is None:
    return reader
  return lambda params, model_state, images: reader(params, model_state, prepare(images))
