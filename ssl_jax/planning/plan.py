"""Plans a training run or an evaluation for chips that are not present.

The programs of the run are compiled for these chips; the result tells memory, FLOPs, traffic and time.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator
from typing import Any, cast

import jax
from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.config.schema import EvaluateConfig, TrainConfig, to_json
from ssl_jax.core import DataSpec, TrainState
from ssl_jax.planning import hlo
from ssl_jax.planning.chips import HOSTS, Chip
from ssl_jax.planning.data_size import data_of
from ssl_jax.planning.evaluations import evaluating
from ssl_jax.planning.host_work import host_work
from ssl_jax.planning.topology import open_topology, quiet
from ssl_jax.planning.traffic import traffic
from ssl_jax.planning.work import Work, bytes_per_chip, rows_of
from ssl_jax.run.assembly import Assembly, abstract_state, assemble, lower_train_step
from ssl_jax.run.commit import running_commit


def plan(
  config: TrainConfig,
  topology: str,
  *,
  evaluation: EvaluateConfig | None = None,
  images: int = 0,
  classes: int = 0,
  advise: bool = True,
) -> dict[str, Any]:
  """Compiles the train step of `config` for `topology`, or the programs of `evaluation`, and analyses them.

  Args:
    topology: see `open_topology`.
    evaluation: if given, the tasks of this evaluation are planned instead of the training.
    images, classes: size of the training data, of which `config.data.split` is already taken; 0 means that
      split of the data set in SIZES.
    advise: if the train step does not fit, try changes until one fits: remat, fsdp, gradient accumulation,
      smaller batches.
  Returns: a dict that can be written as JSON. For training: "fits", "memory" (bytes per chip), "an_image"
    (FLOPs and bytes per image), "roofline" (lower bounds of the step time), "collectives", "schedule", "host"
    (`host_work`, measured on this machine) and, if it does not fit, "advice". For an evaluation: one such
    dict per task, without the last three, under "tasks".
  Raises: ValueError for an unknown topology, a batch that the devices do not divide, a data set or a split of
    unknown size, or a missing compiler.
  """
  chip, mesh = open_topology(topology)
  config = _for_accelerator(config)
  data = data_of(config, images, classes)
  found = {
    "commit": running_commit(),
    "topology": topology,
    "chips": mesh.size,
    "chip": chip._asdict(),
    "config": to_json(config),
    "data": {"images": data.num_examples, "classes": data.num_classes},
  }
  if evaluation is None:
    parallel.check_batch(config.batch_size, mesh, config.accumulate)
    found |= _training(config, data, chip, mesh)
    if "roofline" in found:
      at_most = found["roofline"]["images_a_second"] / mesh.size
      found["host"] = host_work(config, HOSTS[topology.partition(":")[0]], at_most)
    return found | ({"advice": _advise(config, data, chip, mesh)} if advise and not found["fits"] else {})
  parallel.check_batch(evaluation.batch_size, mesh)
  return found | {
    "evaluation": to_json(evaluation),
    "tasks": {
      name: _measure(work, chip, mesh)
      for name, work in evaluating(config, data, evaluation, mesh, chip.platform).items()
    },
  }


def _for_accelerator(config: TrainConfig) -> TrainConfig:
  """The config with "auto" resolved as on an accelerator, not as on this machine."""
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
  rows = jax.tree.map(lambda leaf: rows_of(leaf.shape, leaf.dtype, mesh), parts.batch)
  return Work(
    lambda mesh: lower_train_step(parts, state(mesh), mesh),
    lambda mesh: config.batch_size,
    {
      "parameters": bytes_per_chip((here.params, here.model_state)),
      "optimizer": bytes_per_chip(here.opt_state),
      "method_state": bytes_per_chip(here.extra),
      "batch": bytes_per_chip(rows),
    },
  )


def _measure(work: Work, chip: Chip, mesh: Mesh) -> dict[str, Any]:
  """Compiles the program for the mesh; reports its memory, FLOPs, traffic and collectives."""
  memory, usable, began = dict(work.parts), int(chip.memory * chip.share), time.monotonic()
  try:
    with quiet():
      compiled = work.lower(mesh).compile()
  except Exception as error:
    if "RESOURCE_EXHAUSTED" not in str(error) and "Ran out of memory" not in str(error):
      raise
    return {
      "fits": False,
      "memory": {**memory, "total": _required_bytes(str(error), sum(memory.values())), "usable": usable},
    }
  sizes, text = cast(Any, compiled.memory_analysis()), cast(str, compiled.as_text())
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
  if chip.platform == "gpu":  # whose calls into libraries are opaque to the analysis
    flops = _flops_on_cpu(work) * images / mesh.size
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


def _flops_on_cpu(work: Work) -> float:
  """FLOPs for each image of the program lowered for one CPU."""
  alone = parallel.make_mesh(jax.devices("cpu")[:1])
  module = cast(Any, work.lower(alone).compiler_ir("hlo")).get_hlo_module()
  return hlo.cost(module.to_string()).flops / work.images(alone)


def _required_bytes(error: str, given: int) -> int:
  """Bytes that a program needs which the compiler rejected as too large; 0 if its message names no number.

  Args:
    error: the compiler's message. It names either the total or only the temporaries.
    given: bytes of the arguments, which are added to the temporaries.
  """
  whole, beside = (
    re.search(text, error) for text in (r"Used ([\d.]+)([KMGT]) of", r"\(([\d.]+)([KMGT])\) exceeds")
  )
  found = whole or beside
  return int(float(found[1]) * 1024 ** " KMGT".index(found[2])) + (0 if whole else given) if found else 0


def _advise(config: TrainConfig, data: DataSpec, chip: Chip, mesh: Mesh) -> list[dict[str, Any]]:
  """The changes to the config that were tried, in order; the last one fits, unless none does.

  Changes that the method refuses, such as parts of a batch that would cut its BatchNorm groups, are left out.
  """
  tried = []
  for change in _changes(config, mesh):
    changed = _changed(config, change)
    changed_data = data._replace(batch_size=changed.batch_size)
    try:
      assemble(changed, changed_data)
    except ValueError:
      continue
    found = _training(changed, changed_data, chip, mesh)
    tried.append({"change": change, "fits": found["fits"], "total": found["memory"]["total"]})
    if found["fits"]:
      break
  return tried


def _changes(config: TrainConfig, mesh: Mesh) -> Iterator[dict[str, Any]]:
  """Changes that save memory, {config path: value}, in the order in which to try them."""
  kinds = ("dots", "full") if "layers" in config.encoder else ("full",)  # transformers have both kinds
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
