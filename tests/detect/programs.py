"""What a program would allocate and call, read from its jaxpr; random boxes; plain IoU and suppression."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jaxprs

GIGABYTE = 10**9
CALLBACKS = {"pure_callback", "io_callback", "debug_callback", "infeed", "outfeed"}


def shape(*sizes, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(sizes, dtype)


def equations(jaxpr):
  """Every equation of a jaxpr and of the programs inside it: loops, branches, calls."""
  for equation in jaxpr.eqns:
    yield equation
    for leaf in jax.tree.leaves(equation.params, is_leaf=is_program):
      if is_program(leaf):
        yield from equations(leaf.jaxpr if isinstance(leaf, jaxprs.ClosedJaxpr) else leaf)


def is_program(leaf) -> bool:
  return isinstance(leaf, jaxprs.ClosedJaxpr | jaxprs.Jaxpr)


def largest_array(function, *abstract) -> int:
  """Bytes of the largest array in the program of `function`; fails if the program calls the host.

  Broadcasts of a scalar and what only reshapes them count too: the figure is an upper bound, because the
  compiler fuses elementwise operations.
  """
  jaxpr = jax.make_jaxpr(function)(*abstract).jaxpr
  found = list(equations(jaxpr))
  assert not {equation.primitive.name for equation in found} & CALLBACKS
  arrays = [variable.aval for equation in found for variable in equation.outvars]
  return max(math.prod(array.shape) * itemsize(array) for array in arrays if hasattr(array, "shape"))


def itemsize(array) -> int:
  return 4 if jax.dtypes.issubdtype(array.dtype, jax.dtypes.extended) else array.dtype.itemsize


def random_boxes(seed: int, count: int, side: int = 1000, *, whole: bool = False) -> np.ndarray:
  """f32[count, 4] boxes in an image of `side` pixels, many of which overlap.

  Those that are `whole` have integer corners: every correctly rounded implementation finds the same IoU.
  """
  random = np.random.default_rng(seed)
  objects = random.integers(0, max(count // 10, 1), count)  # each is covered by about ten boxes
  pick = lambda values: values[: objects.max() + 1][objects]
  sides = pick(np.exp(random.uniform(np.log(side / 40), np.log(side / 3), (count, 2))))
  centres = pick(random.uniform(0, side, (count, 2))) + sides * random.uniform(-0.15, 0.15, (count, 2))
  sides = sides * random.uniform(0.8, 1.25, (count, 2))
  boxes = np.concatenate([centres - sides / 2, centres + sides / 2], 1).clip(0, side)
  if whole:
    boxes = np.round(boxes)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
  return boxes.astype(np.float32)


def numpy_iou(first, second):
  """IoU by the definition, with a loop over the boxes of `first`, in float32."""
  found = np.zeros((len(first), len(second)), np.float32)
  area = (second[:, 2] - second[:, 0]) * (second[:, 3] - second[:, 1])
  for row, (x1, y1, x2, y2) in enumerate(first):
    width = np.minimum(x2, second[:, 2]) - np.maximum(x1, second[:, 0])
    height = np.minimum(y2, second[:, 3]) - np.maximum(y1, second[:, 1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    union = (x2 - x1) * (y2 - y1) + area - shared
    found[row] = np.where(shared > 0, shared / np.where(union > 0, union, 1), 0)
  return found


def greedy(boxes, scores, threshold, groups=None):
  """Rows that non-maximum suppression keeps, one after the other: the definition."""
  left, kept = np.argsort(-scores, kind="stable"), []
  while left.size:
    row, left = left[0], left[1:]
    kept.append(int(row))
    near = numpy_iou(boxes[row : row + 1], boxes[left])[0] > np.float32(threshold)
    left = left[~near if groups is None else ~(near & (groups[left] == groups[row]))]
  return kept
