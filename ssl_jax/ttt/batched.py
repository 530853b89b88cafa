"""Test-time training of many samples on all devices, several at once, independently or along a stream."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.abilities import Adaptable
from ssl_jax.core import Augment, Key, PyTree, Weights
from ssl_jax.parallel import placement
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.ttt.inner_loop import Adapt, AdaptResult, make_adapt, select_params

COPIES_AT_ONCE = 2048  # number of copies in one forward pass on an accelerator
BYTES_AT_ONCE = 2**31  # upper limit for the trainable parameters, their gradients and momenta

Samples = dict[str, np.ndarray]  # arrays of N samples by name: {"image": uint8[N, H, W, 3]}


class Program(NamedTuple):
  """The adaptation, compiled for a fixed number of samples at once."""

  # (weights, trainable, key, samples [size, ...], indices i32[size]) -> (AdaptResult, trainable)
  respond: Callable[..., tuple[AdaptResult, PyTree]]
  size: int  # number of samples or streams at once, over all devices
  memory: Callable[[], int]  # bytes on one device including the arguments, known after the first call
  mesh: Mesh


def images_at_once(adapt: Adapt, trainable: PyTree, platform: str = "") -> int:
  """Returns the default number of samples that a device adapts to at once. The results do not depend on it.

  On CPU it is 1, because convolutions whose weights differ between samples are slow there (half the speed at
  4 samples, a third at 16). On accelerators it is the number of samples with COPIES_AT_ONCE copies in one
  forward pass, limited so that their parameters, gradients and momenta stay below BYTES_AT_ONCE.

  Args:
    platform: "cpu" or another one; "": the platform of this machine.
  """
  if (platform or jax.default_backend()) == "cpu":
    return 1
  weights = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(trainable))
  return max(1, min(COPIES_AT_ONCE // adapt.copies, BYTES_AT_ONCE // (3 * weights)))


def compile_adapt(
  adapt: Adapt, mesh: Mesh, *, together: int, carried: bool, loop: Literal["auto", "program", "host"] = "auto"
) -> Program:
  """Compiles `adapt` for `together` samples on each device of the mesh.

  Args:
    carried: True if the trainable parameters have a leading axis of samples (streams), both as argument and
      as result; otherwise all samples start from the same parameters.
    loop: how the loop over the steps runs. "program": inside one compiled program; "host": one program per
      step, called from the host, because a convolution inside a compiled loop is 30 times slower on CPU;
      "auto": "host" on CPU, otherwise "program".
  Raises: ValueError if `together` is not positive.
  """
  if together < 1:
    raise ValueError(f"together={together} samples at once; use 1 or more")
  rows = functools.partial(OnRows, mesh=mesh)
  begin = rows(adapt.begin, (False, carried, False, True, True))
  step = rows(adapt.step, (False, True, False))
  finish = rows(adapt.finish, (False, carried, True))
  program = rows(functools.partial(_all_steps, adapt), (False, carried, False, True, True))

  def by_step(weights, trainable, key, samples, indices):
    state = begin(weights, trainable, key, samples, indices)
    for number in range(adapt.steps):
      state = step(weights, state, np.int32(number))
    return finish(weights, trainable, state)

  on_host = loop == "host" or (loop == "auto" and jax.default_backend() == "cpu")
  respond, parts = (by_step, (begin, step, finish)) if on_host else (program, (program,))
  return Program(respond, together * mesh.size, lambda: max(part.memory() for part in parts), mesh)


def _all_steps(adapt: Adapt, weights, trainable, key, sample, index):
  """Runs the whole adaptation to one sample in one function."""
  state = adapt.begin(weights, trainable, key, sample, index)
  if adapt.steps:
    one = lambda state, number: (adapt.step(weights, state, number), None)
    state, _ = jax.lax.scan(one, state, jnp.arange(adapt.steps))
  return adapt.finish(weights, trainable, state)


def standard(
  program: Program,
  weights: Weights,
  trainable: PyTree,
  key: Key,
  samples: Samples,
  indices: np.ndarray,
  *,
  start: int = 0,
) -> Iterator[tuple[int, AdaptResult]]:
  """Adapts to each sample, starting from the same weights each time.

  Args:
    samples: arrays with a leading axis of N samples.
    indices: i32[N]; the random numbers of a sample depend on its index.
    start: the first sample that has no result yet.
  Yields: (number of samples done, results of the latest samples on the host).
  """
  ahead, count = None, len(indices)
  for first in range(start, count, program.size):
    rows = np.minimum(np.arange(first, first + program.size), count - 1)
    placed = jax.tree.map(
      lambda leaf, rows=rows: placement.spread(leaf[rows], program.mesh), (samples, indices)
    )
    result, _ = program.respond(weights, trainable, key, *placed)
    if ahead is not None:
      yield _fetched(*ahead)
    ahead = min(first + program.size, count), min(program.size, count - first), result
  if ahead is not None:
    yield _fetched(*ahead)


def online(
  program: Program, weights: Weights, trainable: PyTree, key: Key, samples: Samples, indices: np.ndarray
) -> Iterator[tuple[AdaptResult, PyTree]]:
  """Adapts to one sample of every stream at a time, in order.

  Args:
    trainable: the initial parameters, with a leading axis of program.size streams.
    samples: arrays [N, program.size, ...].
    indices: i32[N], the indices of the samples, the same in all streams.
  Yields: (results of one sample per stream on the devices, the trainable parameters after it).
  """
  for number, index in enumerate(indices):
    sample = {name: leaf[number] for name, leaf in samples.items()}
    placed = jax.tree.map(
      lambda leaf: placement.spread(leaf, program.mesh), (sample, np.full(program.size, index, np.int32))
    )
    result, trainable = program.respond(weights, trainable, key, *placed)
    yield result, trainable


def adapt(
  backbone: Backbone,
  samples: np.ndarray | Mapping[str, np.ndarray],
  *,
  size: int = 0,
  augment: Augment,
  optimizer: optax.GradientTransformation,
  key: Key,
  steps: int,
  copies: int,
  trainable: tuple[str, ...] = (),
  together: int = 0,
  mesh: Mesh | None = None,
  **options,
) -> AdaptResult:
  """Standard test-time training of given samples: predicts each sample after adaptation to it.

  Args:
    backbone: of a run whose method is Adaptable ('joint', 'mae_probe'), see `restore`.
    samples: images, see `check_images`; or arrays by name with a leading axis of samples, as the host
      delivers them. Sample i draws from fold_in(key, i).
    size: side of the training images in pixels; required if `samples` are images.
    augment, optimizer, steps, copies, options: see `make_adapt`.
    trainable: see `select_params`; (): the choice of the method.
    together: number of samples at once on a device; 0: `images_at_once`.
    mesh: None: all devices.
  Returns: an AdaptResult with a leading axis of samples, on the host.
  Raises: ValueError for images that cannot be used; methods.MissingAbility if the network has no task to
    learn at test time.
  """
  adaptable = backbone.ability(Adaptable, "test-time training")
  if not isinstance(samples, Mapping):
    samples = {"image": check_images(samples, size)}
  mesh = mesh or parallel.make_mesh()
  inner = make_adapt(adaptable, augment, optimizer, steps=steps, copies=copies, **options)
  weights, first = initial_params(backbone, trainable)
  program = compile_adapt(inner, mesh, together=together or images_at_once(inner, first), carried=False)
  count = len(next(iter(samples.values())))
  placed = placement.replicate((weights, first, key), mesh)
  found = standard(program, *placed, samples=dict(samples), indices=np.arange(count, dtype=np.int32))
  return jax.tree.map(lambda *parts: np.concatenate(parts), *(result for _, result in found))


def initial_params(backbone: Backbone, trainable: tuple[str, ...] = ()) -> tuple[Weights, PyTree]:
  """Returns (all parameters that could adapt and the model state, the parameters that adapt) of an adaptable
  backbone; see `select_params`.
  """
  adaptable = backbone.ability(Adaptable, "test-time training")
  weights = Weights(adaptable.params(*backbone.weights), backbone.weights.model_state)
  return weights, select_params(weights.params, trainable or adaptable.trainable)


def check_images(images: np.ndarray, size: int) -> np.ndarray:
  """Converts images to the format that adaptation takes, uint8[N, size, size, 3].

  Pixels in [0, 1] are rounded to 256 levels, and a single channel is repeated three times.

  Args:
    images: uint8 or float in [0, 1], [N, size, size, 3], [N, size, size, 1] or [N, size, size].
  Raises: ValueError for pixels that are not finite or out of range, another size, or a number of channels
    other than 1 or 3.
  """
  images = np.asarray(images)
  if images.ndim == 3:
    images = images[..., None]
  if images.ndim != 4 or images.shape[-1] not in (1, 3):
    raise ValueError(
      f"test images are {list(images.shape)}; they must be [N, {size}, {size}, 3], or have 1 channel for grey"
    )
  if images.shape[1:3] != (size, size):
    raise ValueError(
      f"test images are {images.shape[1]} x {images.shape[2]} pixels, but the network was trained on "
      f"{size} x {size}; resize them, or set config.data.size"
    )
  if images.shape[-1] == 1:
    warnings.warn("test images have one channel; it is used for red, green and blue", stacklevel=2)
  if images.dtype != np.uint8:
    bad = np.flatnonzero(
      ~(np.isfinite(images) & (images >= 0) & (images <= 1)).reshape(len(images), -1).all(1)
    )
    if len(bad):
      raise ValueError(
        f"{len(bad)} of {len(images)} test images, number {bad[0]} first, have pixels that are not finite or "
        "outside [0, 1]; leave them out or repair them"
      )
    images = np.round(images * 255).astype(np.uint8)
  return np.broadcast_to(images, (*images.shape[:3], 3)) if images.shape[-1] == 1 else images


class OnRows:
  """Applies a function of one sample to the samples of each device. It is compiled at the first call, and
  vmapped if a device has several samples.
  """

  def __init__(self, function: Callable, rows: tuple[bool, ...], *, mesh: Mesh):
    self._jitted = jax.jit(parallel.per_device(functools.partial(_each, function, rows), mesh, rows))
    self._compiled = None

  def lower(self, *args) -> jax.stages.Lowered:
    return self._jitted.lower(*args)

  def __call__(self, *args):
    if self._compiled is None:
      self._compiled = self.lower(*args).compile()
    return self._compiled(*args)

  def memory(self) -> int:
    found = self._compiled.memory_analysis() if self._compiled else None
    if not found:
      return 0
    return found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes


def _each(function: Callable, rows: tuple[bool, ...], *args):
  """Applies vmap over the arguments that have rows. A single row is not vmapped, so that its convolutions
  stay ordinary ones.
  """
  count = next(len(jax.tree.leaves(arg)[0]) for arg, several in zip(args, rows) if several)
  if count > 1:
    return jax.vmap(function, [0 if several else None for several in rows])(*args)
  one = [jax.tree.map(lambda leaf: leaf[0], arg) if several else arg for arg, several in zip(args, rows)]
  return jax.tree.map(lambda leaf: leaf[None], function(*one))


def _fetched(done: int, count: int, result: AdaptResult) -> tuple[int, AdaptResult]:
  return done, jax.tree.map(lambda leaf: placement.fetch(leaf)[:count], result)
