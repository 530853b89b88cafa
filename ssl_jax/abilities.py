"""What a method can do beside learning. Each ability is a NamedTuple of pure functions, listed by its type in
`Method.abilities`.

A task asks for what it needs with `methods.ability(method, Classifier)`, which returns the NamedTuple or
raises one kind of error. A new ability is a
NamedTuple here and nothing else: no other type has to know it. All functions run in evaluation mode and are
  deterministic; images are
f32[B, H, W, 3] in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from ssl_jax.core import Batch, Key, PyTree


class Pyramid(NamedTuple):
  """Feature maps of intermediate layers."""

  maps: Callable[
    [PyTree, PyTree, jax.Array], dict[str, jax.Array]
  ]  # (params, model_state, images) -> {layer: f32[B, h, w, c]}


class Classifier(NamedTuple):
  """A classifier of the classes that the method was trained on."""

  predict: Callable[
    [PyTree, PyTree, jax.Array], jax.Array
  ]  # (params, model_state, images) -> f32[B, C] logits


class PretextExamples(NamedTuple):
  """Examples of a pretext task made from a batch of images: what the network is shown and what it should
  answer.
  """

  inputs: jax.Array  # f32[B, N, h, w, 3], mostly in [0, 1]: the rotated copies, the patches, the tiles
  targets: jax.Array  # i32[B, M]
  input_names: tuple[str, ...]  # of the N inputs, for pictures
  question: str = ""  # what a target means, for pictures


class PretextTask(NamedTuple):
  """The method's own task, which needs no labels."""

  make_task: Callable[[Key, jax.Array], PretextExamples]  # (key, images) -> examples
  evaluate_task: Callable[
    [PyTree, PyTree, jax.Array], dict[str, jax.Array]
  ]  # (params, model_state, images) -> scores f32[B]


class Reconstruction(NamedTuple):
  """Images as a network that restores them sees and restores them, f32[B, H, W, 3] in [0, 1]."""

  seen: jax.Array  # the network's input
  predicted: jax.Array  # its output
  pasted: jax.Array  # its output where the image was hidden, the image elsewhere


class Restorer(NamedTuple):
  """Restores what is hidden of an image, for pictures."""

  reconstruct: Callable[..., Reconstruction]  # (params, model_state, images, key, **options of the method)


def trained_params(params: PyTree, model_state: PyTree) -> PyTree:
  """The default of `Adaptable.params`: the parameters that training changed."""
  return params


class Adaptable(NamedTuple):
  """What test-time training needs. The rows of every batch are augmented copies of ONE test sample, or that
  sample alone.

  A sample is a record as the host delivers it, without its label: an image, a window of frames, a transition.
  """

  make_task: Callable[
    [Key, Batch], PyTree
  ]  # (key, augmented copies) -> the task; every leaf has their batch axis
  loss: Callable[[PyTree, PyTree, PyTree], jax.Array]  # (params, model_state, task) -> f32[N], without labels
  predict: Callable[
    [PyTree, PyTree, Batch], jax.Array
  ]  # (params, model_state, samples) -> f32[B, ...] logits
  trainable: tuple[
    str, ...
  ]  # which parameters adapt, as `ttt.select_params` reads it: "encoder", "decoder/mask", "encoder/*/kernel"
  certainty: Callable[[PyTree, PyTree, Batch], jax.Array] | None = (
    None  # as predict -> f32[B]: how well it solves the task
  )
  reconstruct: Callable[..., Reconstruction] | None = None  # (params, model_state, images, key), for pictures
  params: Callable[[PyTree, PyTree], PyTree] = (
    trained_params  # everything that could adapt: a frozen encoder too
  )
