"""The parts of the body as DensePose numbers them, and how mirroring left and right exchanges them."""

from __future__ import annotations

import functools

import numpy as np

PARTS = 24  # of the surface, numbered from 1; 0 is the background
SEGMENTS = 14  # of the coarse segmentation, numbered from 1; 0 is the background
SEGMENT_NAMES = ("torso", "right hand", "left hand", "left foot", "right foot", "right upper leg")
SEGMENT_NAMES += ("left upper leg", "right lower leg", "left lower leg", "left upper arm", "right upper arm")
SEGMENT_NAMES += ("left lower arm", "right lower arm", "head")
# Of every part, the number of its segment: the torso and the head have two sides, and so have limbs.
SEGMENT_OF_PART = np.array(
  [0, 1, 1, 2, 3, 4, 5, 6, 7, 6, 7, 8, 9, 8, 9, 10, 11, 10, 11, 12, 13, 12, 13, 14, 14], np.int32
)
# Of every number, that of the same place on the other side of the body.
MIRRORED_PART = np.array([0, 1, 2, *(i + 1 if i % 2 else i - 1 for i in range(3, PARTS + 1))], np.int32)
MIRRORED_SEGMENT = np.array([0, 1, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 14], np.int32)


def mirror_points(part: np.ndarray, uv: np.ndarray, tables: np.ndarray) -> np.ndarray:
  """The U and V f32[..., 2] that points of the surface have after mirroring left and right.

  Args:
    part: i32[...], 1 to 24, before mirroring; 0 for padding.
    uv: f32[..., 2] in [0, 1].
    tables: f32[24, 256, 256, 2], see `read_symmetry`.
  """
  column, row = np.moveaxis((np.clip(uv, 0, 1) * 255).astype(np.int64), -1, 0)
  return np.where((part > 0)[..., None], tables[np.maximum(part, 1) - 1, row, column], 0).astype(np.float32)


@functools.lru_cache(maxsize=1)
def read_symmetry(path: str) -> np.ndarray:
  """Reads the file UV_symmetry_transforms.mat that DensePose's authors released: f32[24, 256, 256, 2].

  The file holds two MATLAB cell arrays of 1 x 24 (or 24 x 1) tables, "U_transforms" and "V_transforms". The
  tables number i, of 256 x 256 numbers in [0, 1], hold at row 255 V and column 255 U, both rounded down, the
  U and the V that a point (U, V) of part i + 1 has after mirroring. Its part becomes MIRRORED_PART.

  The tables of the last file stay in memory.

  Raises: ValueError if the file does not exist or is not of that form, naming what is wrong.
  """
  from scipy.io import loadmat  # here: the host of a run without this file need not load it

  try:
    stored = loadmat(path)
    tables = [np.stack([np.asarray(t, np.float32) for t in stored[key].ravel()]) for key in _KEYS]
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise ValueError(
      f"config.host.symmetry is {path!r}, which cannot be read as a MATLAB file with the cell arrays "
      f"{' and '.join(_KEYS)}: {type(error).__name__}: {error}; use DensePose's UV_symmetry_transforms.mat"
    ) from error
  for key, table in zip(_KEYS, tables, strict=True):
    if table.shape != (PARTS, 256, 256) or not ((table >= 0) & (table <= 1)).all():
      raise ValueError(
        f"{path}: {key} has the shape {table.shape} and values in [{table.min():g}, {table.max():g}]; it "
        f"needs {PARTS} tables of 256 x 256 numbers in [0, 1]"
      )
  return np.stack(tables, -1)


_KEYS = ("U_transforms", "V_transforms")
