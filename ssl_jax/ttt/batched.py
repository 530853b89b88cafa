"""Test-time training of many images: on all devices, several at once, each for itself or along a stream."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.core import Augment, Key, PyTree, Weights
from ssl_jax.parallel import placement
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.ttt.inner_loop import Adapt, AdaptResult, make_adapt, select_params

COPIES_AT_ONCE = 2048  # images in one forward pass on an accelerator
BYTES_AT_ONCE = 2**31  # of moving leaves, gradients and momenta


class Program(NamedTuple):
  """Adapting compiled for a number of images at once."""

  respond: Callable[
    ..., tuple[AdaptResult, PyTree]
  ]  # (weights, moving, key, images u8[size, H, W, 3], indices i32[size])
  size: int  # images or streams at once, over all devices
  memory: Callable[[], int]  # bytes a device, arguments included, after the first call
  mesh: Mesh


def images_at_once(adapt: Adapt, moving: PyTree, platform: str = "") -> int:
  """The default number of images that a device adapts to at once; the answers do not depend on it.

  One on CPU, where convolutions whose weights differ by image are slow (half the speed at 4, a third at 16). On accelerators as many
  as make a forward pass of COPIES_AT_ONCE images, whose own weights, gradients and momenta stay below BYTES_AT_ONCE.

  Args:
    platform: "cpu" or another; "": this machine's.
  """
  if (platform or jax.default_backend()) == "cpu":
    return 1
  weights = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(moving))
  return max(1, min(COPIES_AT_ONCE // adapt.copies, BYTES_AT_ONCE // (3 * weights)))


def compile_adapt(
  adapt: Adapt, mesh: Mesh, *, together: int, carried: bool, loop: Literal["auto", "program", "host"] = "auto"
) -> Program:
  """`adapt` for `together` images on each device of the mesh.

  Args:
    carried: the moving leaves come and go with an axis of images in front (streams); otherwise all begin with the same.
    loop: over the steps: "program": one compiled program with a loop in it; "host": one program a step, called in turn, since a
      convolution inside a loop is 30 times slower on CPU; "auto": "host" on CPU.
  Raises: ValueError if `together` is not positive.
  """
  if together < 1:
    raise ValueError(f"together={together}; use 1 or more images at once")
  rows = functools.partial(_rows, mesh=mesh)
  begin = rows(adapt.begin, (False, carried, False, True, True))
  finish = rows(adapt.finish, (False, carried, True))

  def whole(weights, moving, key, image, index):
    lesson = adapt.begin(weights, moving, key, image, index)
    if adapt.steps:
      lesson, _ = jax.lax.scan(
        lambda lesson, number: (adapt.step(weights, lesson, number), None), lesson, jnp.arange(adapt.steps)
      )
    return adapt.finish(weights, moving, lesson)

  def by_step(weights, moving, key, images, indices):
    lesson = begin(weights, moving, key, images, indices)
    for number in range(adapt.steps):
      lesson = step(weights, lesson, np.int32(number))
    return finish(weights, moving, lesson)

  if loop == "host" or (loop == "auto" and jax.default_backend() == "cpu"):
    step = rows(adapt.step, (False, True, False))
    parts, respond = [begin, step, finish], by_step
  else:
    respond = rows(whole, (False, carried, False, True, True))
    parts = [respond]
  return Program(respond, together * mesh.size, lambda: max(part.memory() for part in parts), mesh)


def standard(
  program: Program,
  weights: Weights,
  moving: PyTree,
  key: Key,
  images: np.ndarray,
  indices: np.ndarray,
  *,
  start: int = 0,
) -> Iterator[tuple[int, AdaptResult]]:
  """Each image from the same weights; yields (images done, answers of the last of them on the host).

  Args:
    images: u8[N, H, W, 3]; indices: i32[N], which randomness is drawn from. start: the first image that is not answered yet.
  """
  ahead = None
  for first in range(start, len(images), program.size):
    rows = np.minimum(np.arange(first, first + program.size), len(images) - 1)
    answer, _ = program.respond(
      weights, moving, key, *(placement.spread(a[rows], program.mesh) for a in (images, indices))
    )
    if ahead is not None:
      yield _fetched(*ahead)
    ahead = min(first + program.size, len(images)), min(program.size, len(images) - first), answer
  if ahead is not None:
    yield _fetched(*ahead)


def online(
  program: Program, weights: Weights, moving: PyTree, key: Key, images: np.ndarray, indices: np.ndarray
) -> Iterator[tuple[AdaptResult, PyTree]]:
  """One image of each stream after the other; yields (answers on the devices, moving leaves after it).

  Args:
    moving: with an axis of program.size streams. images: u8[N, program.size, H, W, 3]. indices: i32[N].
  """
  for image, index in zip(images, indices, strict=True):
    same = np.full(program.size, index, np.int32)
    answer, moving = program.respond(
      weights, moving, key, *(placement.spread(a, program.mesh) for a in (image, same))
    )
    yield answer, moving


def adapt(
  backbone: Backbone,
  images: np.ndarray,
  *,
  size: int,
  augment: Augment,
  optimizer: optax.GradientTransformation,
  key: Key,
  steps: int,
  copies: int,
  moves: tuple[str, ...] = (),
  together: int = 0,
  mesh: Mesh | None = None,
  **options,
) -> AdaptResult:
  """Standard test-time training of images at hand: what is thought of each of them, learning on it first.

  Args:
    backbone: of a run of method 'joint' or 'mae_probe', see `restore.restore`.
    images: see `check_images`; `size` is that of training. Image i draws from fold_in(key, i).
    augment, optimizer, steps, copies, options: see `make_adapt`. moves: see `select_params`; (): what the method says.
    together: images at once on a device, 0: `images_at_once`. mesh: None: all devices.
  Returns: an AdaptResult with an axis of images in front, on the host.
  Raises: ValueError for images that it cannot take, or a network with nothing to learn on them.
  """
  if backbone.adaptable is None:
    raise ValueError(
      f"{backbone.protocol.get('backbone', 'this backbone')!r} has no task to learn on a test image; train one with "
      "method 'joint' or 'mae_probe'"
    )
  images = check_images(images, size)
  mesh = mesh or parallel.make_mesh()
  adapt = make_adapt(backbone.adaptable, augment, optimizer, steps=steps, copies=copies, **options)
  weights, moving = initial_params(backbone, moves)
  program = compile_adapt(adapt, mesh, together=together or images_at_once(adapt, moving), carried=False)
  found = standard(
    program,
    *placement.replicate((weights, moving, key), mesh),
    images,
    np.arange(len(images), dtype=np.int32),
  )
  return jax.tree.map(lambda *parts: np.concatenate(parts), *(answer for _, answer in found))


def initial_params(backbone: Backbone, moves: tuple[str, ...] = ()) -> tuple[Weights, PyTree]:
  """(All params that could move and the model state, of them those that do) of a backbone that is adaptable; see `select_params`."""
  weights = Weights(backbone.adaptable.params(backbone.params, backbone.model_state), backbone.model_state)
  return weights, select_params(weights.params, moves or backbone.adaptable.moves)


def check_images(images: np.ndarray, size: int) -> np.ndarray:
  """Images as adapting takes them, u8[N, size, size, 3]: pixels in [0, 1] are rounded to grey levels, grey is made colour.

  Raises: ValueError for pixels that are not finite or out of range, another size, or a number of channels that is not 1 or 3.
  """
  images = np.asarray(images)
  if images.ndim == 3:
    images = images[..., None]
  if images.ndim != 4 or images.shape[-1] not in (1, 3):
    raise ValueError(
      f"test images are {list(images.shape)}; they must be [N, {size}, {size}, 3], or 1 channel for grey"
    )
  if images.shape[1:3] != (size, size):
    raise ValueError(
      f"test images are {images.shape[1]} x {images.shape[2]} pixels, but the network was trained on {size} x {size}; "
      "resize them, or set config.data.size"
    )
  if images.shape[-1] == 1:
    warnings.warn("test images have one channel; it is taken for red, green and blue alike", stacklevel=2)
  if images.dtype != np.uint8:
    bad = np.flatnonzero(
      ~(np.isfinite(images) & (images >= 0) & (images <= 1)).reshape(len(images), -1).all(1)
    )
    if len(bad):
      raise ValueError(
        f"{len(bad)} of {len(images)} test images, number {bad[0]} first, have pixels that are no number or outside "
        "[0, 1]; leave them out or repair them"
      )
    images = np.round(images * 255).astype(np.uint8)
  return np.broadcast_to(images, (*images.shape[:3], 3)) if images.shape[-1] == 1 else images


class _rows:
  """A function of one image, over the images of each device: vmapped where there are several, compiled at its first call."""

  def __init__(self, function: Callable, cut: tuple[bool, ...], *, mesh: Mesh):
    self._jitted = jax.jit(parallel.per_device(functools.partial(_each, function, cut), mesh, cut))
    self._compiled = None

  def lower(self, *args) -> jax.stages.Lowered:
    return self._jitted.lower(*args)

  def __call__(self, *args):
    if self._compiled is None:
      self._compiled = self.lower(*args).compile()
    return self._compiled(*args)

  def memory(self) -> int:
    found = self._compiled.memory_analysis() if self._compiled else None
    return (
      found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes if found else 0
    )


def _each(function: Callable, cut: tuple[bool, ...], *args):
  """vmap; a single row is not: its convolutions stay plain ones."""
  count = next(len(jax.tree.leaves(arg)[0]) for arg, several in zip(args, cut) if several)
  if count > 1:
    return jax.vmap(function, [0 if several else None for several in cut])(*args)
  one = [jax.tree.map(lambda leaf: leaf[0], arg) if several else arg for arg, several in zip(args, cut)]
  return jax.tree.map(lambda leaf: leaf[None], function(*one))


def _fetched(done: int, count: int, answer: AdaptResult) -> tuple[int, AdaptResult]:
  return done, jax.tree.map(lambda leaf: placement.fetch(leaf)[:count], answer)
