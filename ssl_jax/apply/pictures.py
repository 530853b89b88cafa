"""Whole images for networks that predict maps or boxes, and the pictures of what they predict."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssl_jax.apply.new_images import NewImages
from ssl_jax.data.image_sizes import image_sizes
from ssl_jax.data.whole_image import WholeImage, canvas_of
from ssl_jax.view.film import frames_shown, write_film

LONGEST = 2  # times the shorter side: longer images are reduced further, to bound the canvas
PICTURES = "pictures"


def whole_images(
  images: NewImages, *, size: int, divisor: int = 1, only: tuple[int, int] | None = None
) -> NewImages:
  """The same images as a whole: the shorter side becomes `size` pixels, on a canvas that holds all of them.

  Args:
    divisor: of the height and width of the canvas.
    only: the (height, width) to which whole images are resized, for networks that take no other.
  Raises: ValueError if no image can be read.
  """
  protocol = {**images.protocol, "resize": only or size, "crop": "none"}
  interpolation = protocol["interpolation"]
  if only:
    return images._replace(transform=WholeImage(0, 0, only, interpolation, squash=True), protocol=protocol)
  source = images.source
  if hasattr(source.reader, "times"):  # the frames of a video have one size
    sizes = np.array([source[0]["image"].shape[:2]], np.int32)
  else:
    sizes = image_sizes(source)
    sizes = sizes[(sizes > 0).all(1)]
  if not len(sizes):
    raise ValueError(f"none of the {len(source)} images can be read, such as {source.name(0)}")
  height, width = canvas_of(sizes, size, LONGEST * size)
  canvas = (-(-height // divisor) * divisor, -(-width // divisor) * divisor)
  return images._replace(
    transform=WholeImage(size, LONGEST * size, canvas, interpolation),
    protocol={**protocol, "canvas": list(canvas)},
  )


class Pictures(NamedTuple):
  """Where the pictures of images are written, and which of them belong to the film of a video."""

  folder: pathlib.Path
  names: tuple[str, ...]
  times: tuple[float, ...] = ()  # of the frames of a video, seconds

  def path(self, index: int, suffix: str) -> pathlib.Path:
    """The path of the picture of an image, with the folders of its name; they are created."""
    name = self.names[index].replace(" ", "_").lstrip("/")
    path = self.folder / name
    path = path.with_name(path.name.rpartition(".")[0] or path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(path.name + suffix)

  def film(self, output: pathlib.Path, suffix: str) -> bool:
    """Joins the pictures of a video to an animation; returns whether it was one."""
    if not self.times:
      return False
    shown = frames_shown(len(self.times))
    found = [path for path in (self.path(index, suffix) for index in shown) if path.exists()]
    if not found:
      return False
    pictures = []
    for path in found:
      with Image.open(path) as picture:
        pictures.append(np.asarray(picture.convert("RGB")))
    seconds = (self.times[-1] - self.times[0]) / max(len(found) - 1, 1)
    write_film(output, pictures, milliseconds=1000 * seconds)
    return True
