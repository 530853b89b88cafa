"""Names and layouts of detectors: torchvision's Faster R-CNN and Mask R-CNN on a ResNet with a pyramid."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from ssl_jax.convert.files import Tensors
from ssl_jax.convert.names import KERNEL, LINEAR, SAME, Layout, Tensor, resnet_tensor

BODY = "backbone.body."
CLASS_NAME = "roi_heads.box_predictor.cls_score.weight"
COCO_NUMBERS = 90  # the largest number of a category in COCO; some numbers are not used
POOLED = 7  # side of the box head's features in pixels
# Modules of torchvision's older files -> those of its newer ones, in which a convolution is in a sequence.
RENAMED = {
  r"backbone\.fpn\.(inner|layer)_blocks\.(\d)\.(weight|bias)": r"backbone.fpn.\1_blocks.\2.0.\3",
  r"rpn\.head\.conv\.(weight|bias)": r"rpn.head.conv.0.0.\1",
}
OLD_MASK = r"roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)"

POINTWISE = Layout(
  lambda x: x[:, :, 0, 0].T, lambda x: x.T[:, :, None, None]
)  # [out, in, 1, 1] <-> [in, out]
# [in, out, 2, 2] <-> [2, 2, in, out]
TRANSPOSED = Layout(lambda x: x.transpose(2, 3, 0, 1), lambda x: x.transpose(2, 3, 0, 1))

# The categories of COCO by number, from 1; "-" has no images.
CATEGORIES = """
person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant - stop_sign
parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe - backpack umbrella - -
handbag tie suitcase frisbee skis snowboard sports_ball kite baseball_bat baseball_glove skateboard
surfboard tennis_racket bottle - wine_glass cup fork knife spoon bowl banana apple sandwich orange
broccoli carrot hot_dog pizza donut cake chair couch potted_plant bed - dining_table - - toilet - tv
laptop mouse remote keyboard cell_phone microwave oven toaster sink refrigerator - book clock vase
scissors teddy_bear hair_drier toothbrush
"""


class Shape(NamedTuple):
  """What the tensors tell of a detector."""

  classes: int  # without the background
  masks: bool
  bottleneck: bool  # blocks of the ResNet
  channels: int  # of the pyramid
  hidden: int  # width of the box head


def read(tensors: Tensors, epsilon: float | None = None) -> tuple[Tensors, Shape]:
  """The tensors of a torchvision detector with its newer names, without counters, for our BatchNorm.

  Args:
    epsilon: of its BatchNorm, from which ours (1e-5) differs; the running variances make up for it. None: 0
      if there are no counters of batches, because such files hold the frozen BatchNorm of the published
      detectors, and 1e-5 otherwise.
  Raises: ValueError if it is no Faster R-CNN or Mask R-CNN with one 3x3 convolution in the RPN.
  """
  found = {_renamed(name): value for name, value in tensors.items()}
  for name in (CLASS_NAME, "rpn.head.conv.0.0.weight", "roi_heads.box_head.fc6.weight"):
    if name not in found:
      raise ValueError(f"this file is no Faster R-CNN or Mask R-CNN of torchvision: it has no {name}")
  counters = {name for name in found if name.endswith("num_batches_tracked")}
  change = np.float32((1e-5 if counters else 0.0) - 1e-5 if epsilon is None else epsilon - 1e-5)
  kept = {
    name: value + change if name.endswith("running_var") else value
    for name, value in found.items()
    if name not in counters
  }
  rpn, dense = found["rpn.head.conv.0.0.weight"], found["roi_heads.box_head.fc6.weight"]
  masks = "roi_heads.mask_predictor.mask_fcn_logits.weight" in found
  bottleneck = f"{BODY}layer1.0.conv3.weight" in found
  return kept, Shape(len(found[CLASS_NAME]) - 1, masks, bottleneck, len(rpn), len(dense))


def coco_names() -> tuple[str, ...]:
  """The names of COCO's categories 1 to COCO_NUMBERS; those that are not used are called by their number."""
  names = enumerate(CATEGORIES.split(), 1)
  return tuple(f"unused {number}" if name == "-" else name.replace("_", " ") for number, name in names)


def tensors_of(path: tuple[str, ...], *, bottleneck: bool) -> list[Tensor]:
  """The PyTorch tensor of a leaf of a detector of the kind "fpn"; see `names.tensors_of`.

  Raises: KeyError or AttributeError for a leaf that has no name in torchvision's detectors.
  """
  part, *inner = path
  if part == "encoder":
    name, layout = resnet_tensor(inner, bottleneck)
    return [Tensor(BODY + name, layout)]
  name, leaf = inner
  layer = {"fpn": _pyramid, "rpn": _rpn, "box": _box, "mask": _mask}[part](name)
  layout = {"kernel": layer.kernel, "bias": layer.bias}[leaf]
  return [Tensor(f"{layer.module}.{ {'kernel': 'weight'}.get(leaf, leaf) }", layout)]


def _renamed(name: str) -> str:
  for old, new in RENAMED.items():
    name = re.sub(f"^{old}$", new, name)
  found = re.fullmatch(OLD_MASK, name)
  return f"roi_heads.mask_head.{int(found[1]) - 1}.0.{found[2]}" if found else name


def _background_last(x: np.ndarray) -> np.ndarray:
  return np.roll(x, -1, 0)


def _background_first(x: np.ndarray) -> np.ndarray:
  return np.roll(x, 1, 0)


def _without(rows: int) -> Layout:
  """Their first rows are those of the background, which no result depends on: zeros on the way back."""

  def theirs(x: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros((rows, *x.shape[1:]), x.dtype), x])

  return Layout(lambda x: x[rows:], theirs)


def _then(first: Layout, second: Layout) -> Layout:
  return Layout(lambda x: second.ours(first.ours(x)), lambda x: first.theirs(second.theirs(x)))


def _flattened(x: np.ndarray) -> np.ndarray:
  """[out, C * P * P] -> [P * P * C, out]."""
  return x.reshape(len(x), -1, POOLED, POOLED).transpose(2, 3, 1, 0).reshape(-1, len(x))


def _unflattened(x: np.ndarray) -> np.ndarray:
  return x.reshape(POOLED, POOLED, -1, x.shape[1]).transpose(3, 2, 0, 1).reshape(x.shape[1], -1)


ROLLED = Layout(_background_last, _background_first)


class Layer(NamedTuple):
  """The module of torchvision that a layer of ours is, and the layouts of its tensors."""

  module: str
  kernel: Layout
  bias: Layout = SAME


def _pyramid(name: str) -> Layer:
  kind = {"lateral": "inner", "output": "layer"}[name[:-1]]
  return Layer(f"backbone.fpn.{kind}_blocks.{int(name[-1]) - 2}.0", KERNEL)


def _rpn(name: str) -> Layer:
  return {
    "conv": Layer("rpn.head.conv.0.0", KERNEL),
    "objectness": Layer("rpn.head.cls_logits", POINTWISE),
    "deltas": Layer("rpn.head.bbox_pred", POINTWISE),
  }[name]


def _box(name: str) -> Layer:
  predictor = "roi_heads.box_predictor."
  return {
    "dense1": Layer("roi_heads.box_head.fc6", Layout(_flattened, _unflattened)),
    "dense2": Layer("roi_heads.box_head.fc7", LINEAR),
    "classes": Layer(f"{predictor}cls_score", _then(ROLLED, LINEAR), ROLLED),
    "deltas": Layer(f"{predictor}bbox_pred", _then(_without(4), LINEAR), _without(4)),
  }[name]


def _mask(name: str) -> Layer:
  if name.startswith("conv"):
    return Layer(f"roi_heads.mask_head.{int(name[4:]) - 1}.0", KERNEL)
  predictor = "roi_heads.mask_predictor."
  return {
    "double": Layer(f"{predictor}conv5_mask", TRANSPOSED),
    "masks": Layer(f"{predictor}mask_fcn_logits", _then(_without(1), POINTWISE), _without(1)),
  }[name]
