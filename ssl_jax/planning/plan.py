"""The plan of a training run, or of measuring what it makes: programs compiled for chips that are not there, and what they cost."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from ssl_jax import parallel, ttt
from ssl_jax.config.schema import EvaluateConfig, TrainConfig, to_json
from ssl_jax.core import DataSpec, TrainState
from ssl_jax.data.sources import SIZES
from ssl_jax.parallel.placement import along_data, replicated
from ssl_jax.planning import hlo
from ssl_jax.planning.chips import Chip
from ssl_jax.planning.topology import open_topology, quiet
from ssl_jax.planning.traffic import traffic
from ssl_jax.run.assembly import Assembly, abstract_state, assemble, lower_train_step
from ssl_jax.run.evaluate import live_augment
from ssl_jax.tasks import features
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.ttt import make_rule
from ssl_jax.ttt.batched import images_at_once


class Work(NamedTuple):
  """A program that can be lowered for any mesh."""

  lower: Callable[[Mesh], jax.stages.Lowered]
  images: Callable[[Mesh], int]  # that one call of it handles, over all chips
  parts: dict[str, int]  # bytes on a chip of what it is given, by name


def plan(
  config: TrainConfig,
  topology: str,
  *,
  evaluation: EvaluateConfig | None = None,
  images: int = 0,
  classes: int = 0,
  advise: bool = True,
) -> dict[str, Any]:
  """Compiles the train step of `config` for `topology`, or what `evaluation` does with its network, and reads what the compiler says.

  Args:
    topology: see `open_topology`.
    images, classes: of the training data; 0: those of a data set that SIZES knows.
    advise: if the train step does not fit, try what would make it fit: remat, fsdp, parts of a batch, smaller batches.
  Returns: a dict that JSON can hold: "fits", "memory" (bytes a chip), "an_image", "roofline", "collectives", and "schedule" and "advice"
    of training; of an evaluation such dicts by task, under "tasks".
  Raises: ValueError for an unknown topology, a batch that does not divide, unknown data, or if the compiler is missing.
  """
  chip, mesh = open_topology(topology)
  config = _for_accelerator(config)
  data = _data(config, images, classes)
  found = {
    "topology": topology,
    "chips": mesh.size,
    "chip": chip._asdict(),
    "config": to_json(config),
    "data": {"images": data.num_examples, "classes": data.num_classes},
  }
  if evaluation is None:
    parallel.check_batch(config.batch_size, mesh, config.accumulate)
    found |= _training(config, data, chip, mesh)
    return found | ({"advice": _advise(config, data, chip, mesh)} if advise and not found["fits"] else {})
  parallel.check_batch(evaluation.batch_size, mesh)
  return found | {
    "evaluation": to_json(evaluation),
    "tasks": {
      name: _measure(work, chip, mesh)
      for name, work in _evaluating(config, data, evaluation, mesh, chip.platform).items()
    },
  }


def _data(config: TrainConfig, images: int, classes: int) -> DataSpec:
  known_images, known_classes = SIZES.get(config.data.name, (0, 0))
  if not (images or known_images):
    raise ValueError(
      f"how many images config.data.name {config.data.name!r} has is not known here; say --images=N --classes=N"
    )
  return DataSpec(images or known_images, classes or known_classes, config.batch_size)


def _for_accelerator(config: TrainConfig) -> TrainConfig:
  """What "auto" means on the machine that is planned for, not on this one."""
  if config.encoder.get("layers") == "auto":
    return dataclasses.replace(config, encoder={**config.encoder, "layers": "scan"})
  return config


def _training(config: TrainConfig, data: DataSpec, chip: Chip, mesh: Mesh) -> dict[str, Any]:
  parts = assemble(config, data)
  found = _measure(_train_step(config, parts, mesh), chip, mesh)
  if "roofline" in found:
    found["schedule"] = {
      "steps": parts.total_steps,
      "hours_at_least": parts.total_steps * found["roofline"]["step_seconds"] / 3600,
    }
  return found


def _train_step(config: TrainConfig, parts: Assembly, mesh: Mesh) -> Work:
  def state(mesh: Mesh) -> TrainState:
    return abstract_state(parts, config, mesh)[0]

  here = state(mesh)
  rows = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, parallel.BATCH)),
    parts.batch,
  )
  return Work(
    lambda mesh: lower_train_step(parts, state(mesh), mesh),
    lambda mesh: config.batch_size,
    {
      "parameters": _share((here.params, here.model_state)),
      "optimizer": _share(here.opt_state),
      "method_state": _share(here.extra),
      "batch": _share(rows),
    },
  )


def _evaluating(
  config: TrainConfig, data: DataSpec, evaluation: EvaluateConfig, mesh: Mesh, platform: str
) -> dict[str, Work]:
  """By task: adapting to test images, or the network's pass over a batch of them, which other tasks spend their time on."""
  parts = assemble(config, data)
  size = evaluation.data.size or config.augment["size"]

  def backbone(mesh: Mesh) -> Backbone:
    state = abstract_state(parts, dataclasses.replace(config, sharding="replicate"), mesh)[0]
    return Backbone(state.params, state.model_state, parts.method.encode, adaptable=parts.method.adaptable)

  def passing(mesh: Mesh) -> jax.stages.Lowered:
    network, count = backbone(mesh), evaluation.batch_size
    rows = {
      "image": ((count, size, size, 3), jnp.uint8),
      "label": ((count,), jnp.int32),
      "index": ((count,), jnp.int32),
      "mask": ((count,), bool),
    }
    return features.encode_rows.lower(
      network.params,
      network.model_state,
      {name: jax.ShapeDtypeStruct(*leaf, sharding=along_data(mesh)) for name, leaf in rows.items()},
      function=network.encode,
      mesh=mesh,
    )

  here = _share(backbone(mesh)[:2])
  found = {}
  for name, options in evaluation.tasks.items():
    if options.get("task", name) == "ttt":
      found[name] = _adapting(backbone, evaluation, options, size, mesh, platform)
    else:
      found[name] = Work(passing, lambda mesh: evaluation.batch_size, {"parameters": here})
  return found


def _adapting(
  backbone: Callable[[Mesh], Backbone],
  evaluation: EvaluateConfig,
  options: dict,
  size: int,
  mesh: Mesh,
  platform: str,
) -> Work:
  network = backbone(mesh)
  if network.adaptable is None:
    raise ValueError(
      "a task 'ttt' needs a network with a task to learn on a test image; plan with a recipe of method 'joint' or 'mae_probe'"
    )
  rule = make_rule(
    options["optimizer"], **{name: options[name] for name in ("learning_rate", "momentum", "weight_decay")}
  )
  learn = ttt.make_adapt(
    network.adaptable,
    live_augment(evaluation, size),
    rule,
    **{name: options[name] for name in ("steps", "copies", "micro_batches", "threshold", "curve")},
  )
  moves, carried = tuple(options["moves"]), options["mode"] == "online"
  _, moving = ttt.initial_params(network, moves)
  together = options["together"] or images_at_once(learn, moving, platform)

  def lower(mesh: Mesh) -> jax.stages.Lowered:
    count = together * mesh.size
    weights, moving = ttt.initial_params(backbone(mesh), moves)
    if carried:
      moving = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype, sharding=along_data(mesh)), moving
      )
    key = jax.eval_shape(lambda: jax.random.key(0))
    images, indices = (
      jax.ShapeDtypeStruct(shape, dtype, sharding=along_data(mesh))
      for shape, dtype in (((count, size, size, 3), jnp.uint8), ((count,), jnp.int32))
    )
    return ttt.compile_adapt(learn, mesh, together=together, carried=carried, loop="program").respond.lower(
      weights, moving, jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(mesh)), images, indices
    )

  return Work(
    lower,
    lambda mesh: together * mesh.size,
    {"parameters": _share(network[:2]), "moving": _share(moving) * (together if carried else 1)},
  )


def _share(tree: Any) -> int:
  """Bytes of the leaves on one chip, without keys."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
    if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
  )


def _measure(work: Work, chip: Chip, mesh: Mesh) -> dict[str, Any]:
  memory, usable, began = dict(work.parts), int(chip.memory * chip.share), time.monotonic()
  try:
    with quiet():
      compiled = work.lower(mesh).compile()
  except Exception as error:
    if "RESOURCE_EXHAUSTED" not in str(error) and "Ran out of memory" not in str(error):
      raise
    return {
      "fits": False,
      "memory": {**memory, "total": _wanted(str(error), sum(memory.values())), "usable": usable},
    }
  sizes, text = compiled.memory_analysis(), compiled.as_text()
  memory |= {"temporaries": sizes.temp_size_in_bytes, "program": sizes.generated_code_size_in_bytes}
  memory["total"] = (
    sizes.argument_size_in_bytes
    + sizes.output_size_in_bytes
    - sizes.alias_size_in_bytes
    + sizes.temp_size_in_bytes
    + sizes.generated_code_size_in_bytes
  )
  flops, accessed = hlo.cost(text)
  moved = traffic(text)
  images = work.images(mesh)
  if (
    chip.platform == "gpu"
  ):  # whose libraries' calls the analysis cannot look into: the same program, lowered for one CPU
    alone = parallel.make_mesh(jax.devices("cpu")[:1])
    flops = (
      hlo.cost(work.lower(alone).compiler_ir("hlo").get_hlo_module().to_string()).flops
      / work.images(alone)
      * images
      / mesh.size
    )
  compute, streaming = flops / chip.flops, moved / chip.bandwidth
  step, per_chip = max(compute, streaming), images / mesh.size
  return {
    "fits": memory["total"] <= usable,
    "memory": {**memory, "usable": usable},
    "compile_seconds": time.monotonic() - began,
    "an_image": {
      "flops": flops / per_chip,
      "hbm_bytes": moved / per_chip,
      "bytes_accessed": accessed / per_chip,
    },
    "roofline": {
      "compute_seconds": compute,
      "memory_seconds": streaming,
      "step_seconds": step,
      "bound": "compute" if compute >= streaming else "memory",
      "images_at_once": images,
      "images_a_second": images / step,
    },
    "collectives": hlo.collectives(text),
  }


def _wanted(error: str, given: int) -> int:
  """Bytes that a program needs which the compiler refused for its size: of all, or of temporaries beside what it is given; 0: not said."""
  whole, beside = (
    re.search(text, error) for text in (r"Used ([\d.]+)([KMGT]) of", r"\(([\d.]+)([KMGT])\) exceeds")
  )
  found = whole or beside
  return int(float(found[1]) * 1024 ** " KMGT".index(found[2])) + (0 if whole else given) if found else 0


def _advise(config: TrainConfig, data: DataSpec, chip: Chip, mesh: Mesh) -> list[dict[str, Any]]:
  """Changes to the config, tried one after the other until one fits."""
  tried = []
  for change in _changes(config, mesh):
    found = _training(
      _changed(config, change),
      data._replace(batch_size=change.get("config.batch_size", data.batch_size)),
      chip,
      mesh,
    )
    tried.append({"change": change, "fits": found["fits"], "total": found["memory"]["total"]})
    if found["fits"]:
      break
  return tried


def _changes(config: TrainConfig, mesh: Mesh) -> Iterator[dict[str, Any]]:
  kinds = (
    ("dots", "full") if "layers" in config.encoder else ("full",)
  )  # transformers, convolutional networks
  remat = [{"config.encoder.remat": kind} for kind in kinds] if config.encoder.get("remat") == "none" else []
  yield from remat
  fsdp = {"config.sharding": "fsdp"} if config.sharding == "replicate" else {}
  if fsdp:
    yield fsdp
  if fsdp and remat:
    yield {**fsdp, **remat[-1]}
  accumulate = 2 * config.accumulate
  while config.batch_size % (mesh.size * accumulate) == 0:
    yield {"config.accumulate": accumulate}
    accumulate *= 2
  batch = config.batch_size // 2
  while batch >= mesh.size and batch % mesh.size == 0:
    yield {"config.batch_size": batch}
    batch //= 2


def _changed(config: TrainConfig, change: dict[str, Any]) -> TrainConfig:
  for name, value in change.items():
    section, _, option = name.removeprefix("config.").partition(".")
    config = dataclasses.replace(
      config, **{section: {**getattr(config, section), option: value} if option else value}
    )
  return config
