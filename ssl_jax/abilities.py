"""What a method can do besides learning. Each ability is a NamedTuple of pure functions, stored by its type
in `Method.abilities`.

A task gets the ability that it needs with `methods.ability(method, Classifier, ...)`, which returns the
NamedTuple or raises MissingAbility. A new ability is a new NamedTuple in this file; no other type has to
change. All functions run in evaluation mode and are deterministic. Images are f32[B, H, W, 3] in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ssl_jax.core import Batch, Key, PyTree


class Pyramid(NamedTuple):
  """Feature maps of intermediate layers."""

  # (params, model_state, images) -> {layer: f32[B, h, w, c]}
  maps: Callable[[PyTree, PyTree, jax.Array], dict[str, jax.Array]]


class Classifier(NamedTuple):
  """A classifier for the classes that the method was trained on."""

  # (params, model_state, images) -> f32[B, C] logits
  predict: Callable[[PyTree, PyTree, jax.Array], jax.Array]


class PretextExamples(NamedTuple):
  """Examples of a pretext task, made from a batch of images: the network's inputs and their targets."""

  inputs: jax.Array  # f32[B, N, h, w, 3], mostly in [0, 1]: the rotated copies, the patches or the tiles
  targets: jax.Array  # i32[B, M]
  input_names: tuple[str, ...]  # names of the N inputs, for pictures
  question: str = ""  # what a target means, for pictures


class Segmenter(NamedTuple):
  """A class for every pixel."""

  # (params, model_state, images) -> f32[B, H, W, C] logits, of the size of the images
  predict: Callable[[PyTree, PyTree, jax.Array], jax.Array]
  divisor: int = 1  # height and width of the images must be multiples of it: the patch of a transformer
  size: tuple[int, int] | None = None  # the only (height, width) of images that it takes; None: it takes any
  # (key, augmented batch) -> the labels in colours, for pictures
  make_task: Callable[[Key, Batch], PretextExamples] | None = None


class ObjectDetector(NamedTuple):
  """Boxes with classes and scores, and perhaps masks."""

  # (params, model_state, images, sizes i32[B, 2]) -> models.detection.Predictions in pixels of the images;
  # `sizes` are the (height, width) of the upper left parts that are not padding
  predict: Callable[[PyTree, PyTree, jax.Array, jax.Array], Any]
  num_classes: int
  convention: str = "detectron2"  # how masks are pasted, see `detect.masks.paste_masks`


class DensePose(NamedTuple):
  """People, and the part and place on the body's surface that each of their pixels shows."""

  # as `ObjectDetector.predict`; `further` of the result is a models.densepose.DensePrediction
  predict: Callable[[PyTree, PyTree, jax.Array, jax.Array], Any]


class PretextTask(NamedTuple):
  """The method's own task, which needs no labels."""

  # (key, images) -> examples
  make_task: Callable[[Key, jax.Array], PretextExamples]
  # (params, model_state, images) -> {score: f32[B]}; what is drawn for an image depends on its pixels only
  evaluate_task: Callable[[PyTree, PyTree, jax.Array], dict[str, jax.Array]]
  # the entry of a batch that takes the place of the images: "clip" f32[B, T, H, W, 3], frames in order
  element: str = "image"


class SoundPredictor(NamedTuple):
  """Predicts what is heard around a frame."""

  # (params, model_state, images) -> f32[B, K] logits of clusters, or of bits
  predict: Callable[[PyTree, PyTree, jax.Array], jax.Array]
  target: str  # "clusters" or "bits"
  # (key, augmented batch) -> the images and their true clusters or bits, for pictures
  make_task: Callable[[Key, Batch], PretextExamples]


class Reconstruction(NamedTuple):
  """The input and the output of a network that restores images, each f32[B, H, W, 3] in [0, 1]."""

  seen: jax.Array  # the network's input
  predicted: jax.Array  # the network's output
  pasted: jax.Array  # the output where the image was hidden, and the image itself elsewhere


class Restorer(NamedTuple):
  """Restores the hidden part of an image, for pictures."""

  # (params, model_state, images, key, **options of the method) -> Reconstruction
  reconstruct: Callable[..., Reconstruction]


def trained_params(params: PyTree, model_state: PyTree) -> PyTree:
  """The default of `Adaptable.params`: the parameters that training changed."""
  return params


class Adaptable(NamedTuple):
  """What test-time training needs. The rows of every batch are augmented copies of ONE test sample, or that
  sample alone.

  A sample is a record as the host delivers it, without its label: an image, a window of frames, a transition.
  """

  # (key, augmented copies) -> the task; every leaf has the batch axis of the copies
  make_task: Callable[[Key, Batch], PyTree]
  # (params, model_state, task) -> f32[N]; uses no labels
  loss: Callable[[PyTree, PyTree, PyTree], jax.Array]
  # (params, model_state, samples) -> f32[B, ...] logits
  predict: Callable[[PyTree, PyTree, Batch], jax.Array]
  # which parameters adapt, see `ttt.select_params`: "encoder", "decoder/mask", "encoder/*/kernel"
  trainable: tuple[str, ...]
  # (params, model_state, samples) -> f32[B]: how well the network solves the task on each sample
  certainty: Callable[[PyTree, PyTree, Batch], jax.Array] | None = None
  # (params, model_state, images, key) -> Reconstruction, for pictures
  reconstruct: Callable[..., Reconstruction] | None = None
  # (params, model_state) -> every parameter that could adapt, which includes a frozen encoder
  params: Callable[[PyTree, PyTree], PyTree] = trained_params
  whole: bool = False  # the loss of a copy depends on the other copies, so they are not split into parts
  clean: bool = False  # `make_task` also gets the copies without augmentation, as "clean/image"
  # (params, model_state, task) -> params: a step that follows no gradient, in the place of the optimiser
  update: Callable[[PyTree, PyTree, PyTree], PyTree] | None = None


class Actor(NamedTuple):
  """A policy: an action for what is seen."""

  # (params, model_state, clips f32[B, n + 1, H, W, 3] in [0, 1], oldest frame first) -> f32[B, A] in [-1, 1];
  # it sees the last n frames
  act: Callable[[PyTree, PyTree, jax.Array], jax.Array]
  frames: int  # n
  size: int  # side in pixels of the frames
  actions: int  # A
  learns_actions: bool  # whether the task at test time uses the action


class Masking(NamedTuple):
  """A network whose predictor of classes also takes images of which a part is hidden."""

  # (key, samples) -> the samples with a random part of each image hidden, for `Adaptable.predict`
  hide: Callable[[Key, Batch], Batch]
  # which parameters the prediction uses beside the head of the classes, see `ttt.select_params`
  trainable: tuple[str, ...]
