"""Image transforms of the host: resize an image to one size, or cut views from it.

An image transform is a callable (rng, image) -> uint8[shape]: `image` is an encoded file or pixels
uint8[H, W, 3]; `rng` is a numpy Generator for this image or, if the transform's `random` is False, None. Its
`shape` is the shape of every result. It must be picklable. host.py uses it in the transforms of records.

Device crop or host crop? Each has a cost.
- Device crop (`resize_center_crop` here, the random crops on the device): the parts outside the centre square
  are never used, and every crop is cut from the reduced square, so a small crop is enlarged from few pixels:
  a crop of 8% of the area of a 224-pixel square has sides of 63 pixels. In return the host does the least
  work, and each image is transferred once, however many views are cut from it. For images of one small size,
  as in CIFAR, nothing is lost.
- Host crop (`random_resized_crop`): crops are cut from the full photograph, as in the published recipes. In
  return every view needs a resize on the host and a transfer: two views take about twice the CPU time and the
  bandwidth of one square, and the device can neither crop again nor know where a view came from.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol, cast

import numpy as np
from PIL import Image

from ssl_jax.config.checked import nearest
from ssl_jax.data import decode
from ssl_jax.data.crop_boxes import SAMPLERS, random_box  # noqa: F401
from ssl_jax.data.sharp_resize import KERNELS, resize_sharply

INTERPOLATIONS = {
  "nearest": Image.Resampling.NEAREST,
  "bilinear": Image.Resampling.BILINEAR,
  "bicubic": Image.Resampling.BICUBIC,
  "lanczos": Image.Resampling.LANCZOS,
}
LONGEST = 16  # images with a greater proportion of their sides are not resized as a whole
_MOST_SUPPORT = 3  # pixels to each side that a filter reads: those of Lanczos


class ImageTransform(Protocol):
  """Turns an image into pixels of one shape; see above."""

  @property
  def random(self) -> bool: ...

  @property
  def shape(self) -> tuple[int, ...]: ...

  def __call__(self, rng: np.random.Generator | None, image: bytes | np.ndarray) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class ResizeCenterCrop:
  """The transform that `resize_center_crop` makes."""

  size: int
  resize: int
  interpolation: str
  random: bool = False

  @property
  def shape(self) -> tuple[int, ...]:
    return (self.size, self.size, 3)

  def __call__(self, rng: np.random.Generator | None, image: bytes | np.ndarray) -> np.ndarray:
    if isinstance(image, np.ndarray) and image.shape == self.shape and self.size == self.resize:
      return image
    opened = decode.open_image(image)
    # A reduced JPEG of still twice the target size gives the result of the full one to about one grey level.
    loaded = decode.load(opened, shrink=power_of_two(min(opened.size) / (2 * self.resize)))
    width, height = shorter_side_to(self.resize, *opened.size)
    left, top = round((width - self.size) / 2), round((height - self.size) / 2)
    box = (left, top, left + self.size, top + self.size)
    return decode.to_array(resize_and_crop(loaded, (width, height), box, INTERPOLATIONS[self.interpolation]))


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
  """The transform that `random_resized_crop` makes."""

  size: int
  scale: tuple[float, float]
  ratio: tuple[float, float]
  views: int
  interpolation: str
  reduce: bool
  sampler: str = "pt"
  antialias: bool = True
  random: bool = True

  @property
  def shape(self) -> tuple[int, ...]:
    return (self.views, self.size, self.size, 3)

  def __call__(self, rng: np.random.Generator | None, image: bytes | np.ndarray) -> np.ndarray:
    rng, opened = cast(np.random.Generator, rng), decode.open_image(image)
    sample = SAMPLERS[self.sampler]
    boxes = [sample(rng, *opened.size, scale=self.scale, ratio=self.ratio) for _ in range(self.views)]
    reduce = self.reduce and self.antialias  # a reduced decoding is antialiased
    smallest = min(min(box[2] - box[0], box[3] - box[1]) for box in boxes)
    loaded = decode.load(opened, shrink=power_of_two(smallest / self.size) if reduce else 1)
    views = np.empty(self.shape, np.uint8)
    for view, box in zip(views, boxes):
      if self.antialias:
        view[...] = decode.to_array(self._cut(loaded, box, opened.size))
      else:
        view[...] = resize_sharply(np.asarray(loaded.crop(box)), self.size, self.interpolation)
    return views

  def _cut(self, loaded: Image.Image, box: tuple[int, int, int, int], full: tuple[int, int]) -> Image.Image:
    size, kind = (self.size, self.size), INTERPOLATIONS[self.interpolation]
    if loaded.size == full:
      return loaded.crop(box).resize(size, kind)  # crop first: the filter must not read pixels outside
    across, down = loaded.width / full[0], loaded.height / full[1]
    return loaded.resize(size, kind, box=(box[0] * across, box[1] * down, box[2] * across, box[3] * down))


def resize_center_crop(
  size: int, resize: int | None = None, *, interpolation: str = "bilinear"
) -> ResizeCenterCrop:
  """Makes the transform for evaluation and device crop: shorter side to `resize`, centre crop of `size`.

  An image whose shorter side already equals `resize` is not resampled. Downscaling is antialiased. Rounding
  follows torchvision's Resize and CenterCrop. A JPEG of at least four times the target size is decoded at a
  reduced resolution.

  Args:
    size: side of the result uint8[size, size, 3], in pixels.
    resize: length of the shorter side after resizing, not below `size`; None: `size`. For photographs, 256
      for a size of 224 is the usual protocol.
    interpolation: "nearest", "bilinear", "bicubic" or "lanczos".
  Raises: ValueError for arguments out of range. The transform raises DecodeError.
  Source: the PyTorch evaluation protocol of He et al. 2016; `resize=round(size / 0.875)` is near SimCLR's.
  """
  resize = size if resize is None else resize
  _check(size, interpolation)
  if resize < size:
    raise ValueError(
      f"resize={resize} is smaller than the centre crop of size={size}; use resize={size} or more"
    )
  return ResizeCenterCrop(size, resize, interpolation)


def random_resized_crop(
  size: int,
  *,
  scale: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
  views: int = 2,
  interpolation: str = "bilinear",
  reduce: bool = True,
  sampler: str = "pt",
  antialias: bool = True,
) -> RandomResizedCrop:
  """Makes the transform that cuts `views` independent random-resized crops from each image.

  Args:
    size: side of a view in pixels; the result is uint8[views, size, size, 3], also for one view.
    scale: least and greatest fraction of the image's area that a crop covers. (0.2, 1) in MoCo.
    ratio: least and greatest width / height of a crop.
    interpolation: "bilinear" in MoCo and torchvision, "bicubic" in SimCLR and MAE.
    reduce: decode a JPEG at 1/2, 1/4 or 1/8 of its sides if all crops still have at least `size` pixels per
      side. Views change by a few grey levels, because the inverse DCT then does part of the downscaling.
      It has no effect without `antialias`.
    sampler: "pt" as in torchvision, "tf" as in TensorFlow and SimCLR, "byol" as in the linear probes of BYOL
      and MAE; see crop_boxes.py.
    antialias: whether downscaling is antialiased: not in SimCLR (`resize_sharply`).
  Raises: ValueError for arguments out of range. The transform raises DecodeError.
  Source: Szegedy et al. 2015.
  """
  _check(size, interpolation)
  pair = lambda values: cast(tuple[float, float], tuple(map(float, values)))
  scale, ratio = pair(scale), pair(ratio)
  if not 0 < scale[0] <= scale[1] <= 1:
    raise ValueError(f"scale={scale}: fractions of the area must satisfy 0 < least <= greatest <= 1")
  if not 0 < ratio[0] <= ratio[1]:
    raise ValueError(f"ratio={ratio}: width / height must satisfy 0 < least <= greatest")
  if views < 1:
    raise ValueError(f"views={views}; use at least 1")
  if sampler not in SAMPLERS:
    raise ValueError(f"unknown sampler {sampler!r}{nearest(sampler, SAMPLERS)}")
  if not antialias and interpolation not in KERNELS:
    raise ValueError(
      f"interpolation={interpolation!r} is always antialiased; use {' or '.join(map(repr, KERNELS))}"
    )
  return RandomResizedCrop(size, scale, ratio, views, interpolation, reduce, sampler, antialias)


def _check(size: int, interpolation: str) -> None:
  if size < 1:
    raise ValueError(f"size={size}; use at least 1 pixel")
  if interpolation not in INTERPOLATIONS:
    raise ValueError(f"unknown interpolation {interpolation!r}{nearest(interpolation, INTERPOLATIONS)}")


def power_of_two(factor: float) -> int:
  """Returns the reduction for JPEG decoding: the largest of 1, 2, 4, 8 not above `factor`, at least 1."""
  return next((power for power in (8, 4, 2) if power <= factor), 1)


def resize_and_crop(
  image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int], kind: Image.Resampling
) -> Image.Image:
  """Returns `image.resize(size, kind).crop(box)`, but of a long and thin image only the box is computed.

  An image of 1 x 20,000 pixels whose shorter side is resized to 224 would take 4 GB. If the sides of `size`
  differ by a factor of more than LONGEST, the pixels that the box needs are cut out before they are resized;
  rounding then changes some values by one grey level.
  """
  if max(size) <= LONGEST * min(size):
    return (image if image.size == size else image.resize(size, kind)).crop(box)
  cut, inside = [], []  # by axis: (first, last) pixel that is needed, and the box within these pixels
  for full, length, first, last in zip(image.size, size, box[:2], box[2:], strict=True):
    scale = full / length
    margin = math.ceil(_MOST_SUPPORT * max(scale, 1)) + 1
    start, stop = max(math.floor(first * scale) - margin, 0), min(math.ceil(last * scale) + margin, full)
    cut.append((start, stop))
    inside.append((max(first * scale - start, 0), min(last * scale - start, stop - start)))
  (left, right), (top, bottom) = cut
  (x1, x2), (y1, y2) = inside
  needed = image.crop((left, top, right, bottom))
  return needed.resize((box[2] - box[0], box[3] - box[1]), kind, box=(x1, y1, x2, y2))


def shorter_side_to(side: int, width: int, height: int) -> tuple[int, int]:
  """Returns (width, height) of an image after its shorter side is resized to `side`, in pixels.

  The proportions are kept, and the longer side is rounded down, as in torchvision's Resize.
  """
  return covering(side, side, width, height)


def covering(across: int, down: int, width: int, height: int) -> tuple[int, int]:
  """Returns the smallest (width, height) of a resized image that covers `across` x `down` pixels.

  One side becomes exactly that of the canvas; the other keeps the proportions and is rounded down.
  """
  if width * down <= height * across:
    return across, max(down, int(across * height / width))
  return max(across, int(down * width / height)), down
