"""Draws articulated figures of ellipses, whose parts, U and V are known at every point, and writes them as
DensePose-COCO does."""

from __future__ import annotations

import json
import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.io import savemat

from ssl_jax.data import dense_points, instance_masks
from ssl_jax.data.body_parts import PARTS, SEGMENT_OF_PART, SEGMENTS
from ssl_jax.data.dense_points import SIDE, DensePoints

COLOURS = np.random.default_rng(7).uniform(60, 255, (PARTS + 1, 3))


class Pose(NamedTuple):
  """A figure that looks at us, so that its right side is on the left of the image."""

  centre: tuple[float, float]  # (x, y) of its middle, pixels
  height: float  # pixels
  arms: tuple[float, float] = (0.6, 0.6)  # angles of the right and the left arm from hanging down, radians
  legs: tuple[float, float] = (0.25, 0.25)

  def mirrored(self, width: float) -> Pose:
    """The figure in the mirrored image of this width."""
    x, y = self.centre
    (right_arm, left_arm), (right_leg, left_leg) = self.arms, self.legs
    return Pose((width - x, y), self.height, (left_arm, right_arm), (left_leg, right_leg))


class Limb(NamedTuple):
  """An ellipse from one point to another; the U of its part runs along it and V across it."""

  part: int
  start: np.ndarray  # f64[2] pixels
  end: np.ndarray
  width: float


def limbs(pose: Pose) -> list[Limb]:
  """The limbs of a figure, from back to front."""
  unit, middle = pose.height, np.array(pose.centre)
  at = lambda x, y: middle + unit * np.array([x, y])
  found = []
  right = (-1, pose.arms[0], pose.legs[0], (16, 20, 3), (7, 11, 6))
  left = (1, pose.arms[1], pose.legs[1], (15, 19, 4), (8, 12, 5))
  for sign, arm, leg, upper, lower in (right, left):
    for joint, angle, length, parts in (
      (at(sign * 0.11, -0.24), arm, (0.17, 0.15, 0.07), upper),
      (at(sign * 0.06, 0.05), leg, (0.2, 0.18, 0.06), lower),
    ):
      for part, extent in zip(parts, length, strict=True):
        end = joint + unit * extent * np.array([sign * np.sin(angle), np.cos(angle)])
        found.append(Limb(part, joint, end, 0.075 * unit))
        joint = end
  torso = Limb(2, at(0, -0.29), at(0, 0.1), 0.24 * unit)
  return [*found, torso, Limb(23, at(0, -0.5), at(0, -0.27), 0.15 * unit)]


def surface(pose: Pose, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(Parts i32[n], 0 for the background; U and V f32[n, 2]) of points f[n, 2] (x, y) in pixels."""
  parts, uv = np.zeros(len(points), np.int32), np.zeros((len(points), 2), np.float32)
  for limb in limbs(pose):
    axis = limb.end - limb.start
    length = np.hypot(*axis)
    along = (points - limb.start) @ axis / length**2
    across = (points - limb.start) @ np.array([-axis[1], axis[0]]) / length / limb.width + 0.5
    inside = (2 * along - 1) ** 2 + (2 * across - 1) ** 2 <= 1
    # The head has a right and a left half. Its across runs from its left to its right, as it points down.
    part = np.where(across > 0.5, 23, 24) if limb.part == 23 else limb.part
    parts = np.where(inside, part, parts)
    uv[inside] = np.stack([along, across], 1)[inside]
  return parts, uv


def box_of(pose: Pose) -> np.ndarray:
  """f32[4] pixels, (x1, y1, x2, y2): a little more than the figure."""
  corners = np.concatenate([[limb.start - limb.width / 2, limb.end - limb.width / 2] for limb in limbs(pose)])
  others = np.concatenate([[limb.start + limb.width / 2, limb.end + limb.width / 2] for limb in limbs(pose)])
  return np.concatenate([corners.min(0), others.max(0)]).astype(np.float32)


def grid(box: np.ndarray, height: int, width: int) -> np.ndarray:
  """f64[height * width, 2]: the centres of the cells of a box."""
  y = box[1] + (np.arange(height) + 0.5) * (box[3] - box[1]) / height
  x = box[0] + (np.arange(width) + 0.5) * (box[2] - box[0]) / width
  return np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)


def draw(poses: list[Pose], height: int, width: int) -> np.ndarray:
  """uint8[height, width, 3]: every part has a colour, which fades along it and darkens across it."""
  image = np.full((height * width, 3), 30.0)
  for pose in poses:
    part, uv = surface(pose, grid(np.array([0, 0, width, height]), height, width))
    shade = 0.45 + 0.3 * uv[:, :1] + 0.25 * uv[:, 1:]
    image = np.where(part[:, None] > 0, COLOURS[part] * shade, image)
  return image.clip(0, 255).astype(np.uint8).reshape(height, width, 3)


def annotate(pose: Pose, count: int, seed: int = 0) -> DensePoints:
  """Annotates `count` random points of a figure, and its segments."""
  box = box_of(pose)
  part, uv = surface(pose, grid(box, SIDE, SIDE))
  chosen = np.random.default_rng(seed).choice(np.flatnonzero(part), count, replace=False)
  segments = SEGMENT_OF_PART[part].reshape(SIDE, SIDE)
  masks = [segments == number for number in range(1, SEGMENTS + 1)]
  return DensePoints(
    box,
    (grid(np.array([0, 0, 1, 1]), SIDE, SIDE)[chosen]).astype(np.float32),
    part[chosen],
    uv[chosen],
    tuple(instance_masks.from_pixels(mask) if mask.any() else None for mask in masks),
  )


def write_people(
  root: pathlib.Path,
  images: list[list[Pose]],
  *,
  split: str = "train",
  size: tuple[int, int] = (64, 64),
  points: int = 60,
  bare: int = 0,
) -> pathlib.Path:
  """Writes images of figures and their annotations; returns the JSON file.

  Args:
    images: the figures of each.
    size: (height, width) of the images.
    bare: of the last figures, how many have a box only.
  """
  folder = root / f"{split}_images"
  folder.mkdir(parents=True)
  listed, annotations = [], []
  for number, poses in enumerate(images):
    Image.fromarray(draw(poses, *size)).save(folder / f"{number}.png")
    listed.append({"id": number, "file_name": f"{number}.png", "height": size[0], "width": size[1]})
    for pose in poses:
      x1, y1, x2, y2 = map(float, box_of(pose))
      common = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
      box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
      dense = dense_points.to_coco(annotate(pose, points, seed=len(annotations)))
      annotations.append({**common, **box, **dense})
  for annotation in annotations[len(annotations) - bare :]:
    for key in dense_points.KEYS:
      del annotation[key]
  stored = {"images": listed, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
  path = root / f"{split}.json"
  path.write_text(json.dumps(stored))
  return path


def write_symmetry(path: pathlib.Path) -> str:
  """Writes the table of these figures as UV_symmetry_transforms.mat: U stays and V is reversed."""
  row, column = np.mgrid[:256, :256] / 255
  cells = {}
  for key, table in (("U_transforms", column), ("V_transforms", 1 - row)):
    cells[key] = np.empty((1, PARTS), object)
    for part in range(PARTS):
      cells[key][0, part] = table.copy()
  savemat(path, cells)
  return str(path)
