"""What a training run will need and cost on a TPU slice, found by compiling its real step for one that is not there."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import pathlib
import re
import time
from collections.abc import Iterator
from typing import Any

import jax
import rich.console
import rich.table
from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.assembly import abstract_state, assemble, compile_train_step
from ssl_jax.chips import CHIPS, GIB, Chip, known
from ssl_jax.config import DataSpec, TrainConfig, nearest, to_json

SIZES = {  # images and classes of data sets that need not be at hand for a plan
    "imagenet2012": (1_281_167, 1000), "cifar10": (50_000, 10), "cifar100": (50_000, 100), "sample": (8000, 10)}
RESERVED = 0.02  # of a chip's memory that the runtime keeps
ITEM_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


def plan(config: TrainConfig, topology: str, *, images: int = 0, classes: int = 0, advise: bool = True) -> dict[str, Any]:
  """Compiles the train step of `config` for `topology` and reads what the compiler says of it.

  Args:
    topology: CHIP:SHAPE, such as "v5e:8x8".
    images, classes: of the training data; 0: those of a data set that SIZES knows.
    advise: if the step does not fit, try what would make it fit: remat, fsdp, parts of a batch, smaller batches.
  Returns: a dict that JSON can hold: "fits", "memory" (bytes a chip), "an_image", "roofline", "collectives", "schedule", "advice".
  Raises: ValueError for an unknown topology, a batch that does not divide, unknown data, or if libtpu is missing.
  """
  chip, mesh = open_topology(topology)
  parallel.check_batch(config.batch_size, mesh, config.accumulate)
  data = _data(config, images, classes)
  began = time.monotonic()
  found = _measure(config, data, chip, mesh)
  found |= {"topology": topology, "chips": mesh.size, "chip": chip._asdict(), "compile_seconds": time.monotonic() - began,
            "config": to_json(config), "data": {"images": data.num_examples, "classes": data.num_classes}}
  if not found["fits"] and advise:
    found["advice"] = _advise(config, data, chip, mesh)
  return found


def open_topology(topology: str) -> tuple[Chip, Mesh]:
  """(Figures of the chip, a mesh over devices that are not there). Raises ValueError as `plan` does."""
  name, _, shape = topology.partition(":")
  if name not in CHIPS or not re.fullmatch(r"\d+(x\d+)*", shape):
    raise ValueError(f"--topology={topology}: no such topology{nearest(topology, known())}")
  if importlib.util.find_spec("libtpu") is None:
    raise ValueError("planning for a TPU needs its compiler, which is not installed; pip install 'ssl_jax[tpu]'")
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  from jax.experimental import topologies

  try:
    with _quiet():
      devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
  except Exception as error:  # jax raises RuntimeErrors of many texts
    raise ValueError(f"--topology={topology}: the compiler knows no such topology ({str(error).splitlines()[0]}); known: "
                     + ", ".join(known())) from error
  return CHIPS[name], parallel.make_mesh(devices)


def _data(config: TrainConfig, images: int, classes: int) -> DataSpec:
  known_images, known_classes = SIZES.get(config.data.name, (0, 0))
  if not (images or known_images):
    raise ValueError(f"how many images config.data.name {config.data.name!r} has is not known here; say --images=N --classes=N")
  return DataSpec(images or known_images, classes or known_classes, config.batch_size)


def _measure(config: TrainConfig, data: DataSpec, chip: Chip, mesh: Mesh) -> dict[str, Any]:
  config = _for_accelerator(config)
  parts = assemble(config, data)
  abstract, _ = abstract_state(parts, config, mesh)
  share = lambda tree: sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)
                           if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key))
  memory = {"parameters": share((abstract.params, abstract.model_state)), "optimizer": share(abstract.opt_state),
            "method_state": share(abstract.extra)}
  usable = int(chip.memory * (1 - RESERVED))
  try:
    with _quiet():
      compiled = compile_train_step(parts, abstract, mesh)
  except Exception as error:
    if "RESOURCE_EXHAUSTED" not in str(error) and "Ran out of memory" not in str(error):
      raise
    wanted = re.search(r"Used ([\d.]+)([KMGT]) of", str(error))
    total = int(float(wanted[1]) * 1024 ** " KMGT".index(wanted[2])) if wanted else 0
    return {"fits": False, "memory": {**memory, "total": total, "usable": usable}}
  sizes, costs = compiled.memory_analysis(), compiled.cost_analysis()
  memory |= {"batch": share(jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=jax.NamedSharding(
      mesh, parallel.BATCH)), parts.batch)), "temporaries": sizes.temp_size_in_bytes, "program": sizes.generated_code_size_in_bytes}
  memory["total"] = (sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
                     + sizes.temp_size_in_bytes + sizes.generated_code_size_in_bytes)
  flops, traffic = costs["flops"], costs["bytes accessed"]
  compute, streaming = flops / chip.flops, traffic / chip.bandwidth
  step, per_chip = max(compute, streaming), config.batch_size / mesh.size
  return {
      "fits": memory["total"] <= usable, "memory": {**memory, "usable": usable},
      "an_image": {"flops": flops / per_chip, "hbm_bytes": traffic / per_chip},
      "roofline": {"compute_seconds": compute, "memory_seconds": streaming, "step_seconds": step,
                   "bound": "compute" if compute >= streaming else "memory", "images_a_second": config.batch_size / step},
      "collectives": collectives(compiled.as_text()),
      "schedule": {"steps": parts.total_steps, "hours_at_least": parts.total_steps * step / 3600}}


def _for_accelerator(config: TrainConfig) -> TrainConfig:
  """What "auto" means on the machine that is planned for, not on this one."""
  if config.encoder.get("layers") == "auto":
    return dataclasses.replace(config, encoder={**config.encoder, "layers": "scan"})
  return config


def _advise(config: TrainConfig, data: DataSpec, chip: Chip, mesh: Mesh) -> list[dict[str, Any]]:
  """Changes to the config, tried one after the other until one fits."""
  tried = []
  for change in _changes(config, mesh):
    found = _measure(_changed(config, change), data._replace(batch_size=change.get("config.batch_size", data.batch_size)), chip, mesh)
    tried.append({"change": change, "fits": found["fits"], "total": found["memory"]["total"]})
    if found["fits"]:
      break
  return tried


def _changes(config: TrainConfig, mesh: Mesh) -> Iterator[dict[str, Any]]:
  kinds = ("dots", "full") if "layers" in config.encoder else ("full",)  # transformers, convolutional networks
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
    config = dataclasses.replace(config, **{section: {**getattr(config, section), option: value} if option else value})
  return config


def collectives(program: str) -> dict[str, dict[str, int]]:
  """By kind, how many stand in a compiled program's text and the bytes of their results on a chip.

  One in a loop counts once; the pieces into which the compiler fuses one with computation share its channel and count once.
  """
  found, channels = {}, set()
  for shapes, kind, start, rest in re.findall(rf"= (.+?) ({'|'.join(COLLECTIVES)})(-start)?\((.*)", program):
    channel = re.search(r"channel_id=(\d+)", rest)
    if channel and channel[1] in channels:
      continue
    channels |= {channel[1]} if channel else set()
    sizes = [ITEM_BYTES.get(dtype, 4) * math.prod(map(int, filter(None, dims.split(","))))
             for dtype, dims in re.findall(r"(\w+)\[([\d,]*)\]", shapes)]
    size = max(sizes, default=0) if start else sum(sizes)  # an asynchronous one names its operand as well
    row = found.setdefault(kind, {"count": 0, "bytes": 0})
    row["count"], row["bytes"] = row["count"] + 1, row["bytes"] + size
  return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Without what libtpu writes to the terminal on a machine that has no TPU."""
  saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(null, 2)
    yield
  finally:
    os.dup2(saved, 2)
    os.close(saved), os.close(null)


def write(found: dict[str, Any], output: str | pathlib.Path) -> None:
  """Prints a plan, and writes it as JSON if `output` names a file."""
  console = rich.console.Console(soft_wrap=True, highlight=False)
  table = rich.table.Table("a chip", "GiB", title=f"{found['config']['method']['name']}, {found['config']['encoder']['name']}, batch "
                           f"{found['config']['batch_size']} on {found['topology']}", title_justify="left")
  for name, size in found["memory"].items():
    table.add_row(name.replace("_", " "), f"{size / GIB:.3f}")
  console.print(table)
  spare = found["memory"]["usable"] - found["memory"]["total"]
  console.print(f"{'fits, with' if found['fits'] else 'DOES NOT FIT, short of'} {abs(spare) / GIB:.2f} GiB a chip"
                + ("" if found["fits"] else " to spare" if spare > 0 else ""))
  if "roofline" in found:
    image, roof, schedule = found["an_image"], found["roofline"], found["schedule"]
    console.print(f"an image: {image['flops'] / 1e9:.2f} GFLOP, {image['hbm_bytes'] / 1e6:.1f} MB of memory traffic")
    console.print(f"a step at least {1000 * roof['step_seconds']:.2f} ms, bound by {roof['bound']} (compute "
                  f"{1000 * roof['compute_seconds']:.2f}, memory {1000 * roof['memory_seconds']:.2f}); "
                  f"at most {roof['images_a_second']:,.0f} images/s")
    console.print("collectives: " + (", ".join(f"{row['count']} {kind} ({row['bytes'] / 1e6:.1f} MB)"
                                               for kind, row in found["collectives"].items()) or "none"))
    console.print(f"{schedule['steps']:,} steps, {schedule['hours_at_least']:.2f} hours at least")
  for row in found.get("advice", ()):
    change = " ".join(f"--{name}={value}" for name, value in row["change"].items())
    console.print(f"{'fits' if row['fits'] else 'does not fit'}: {change} ({row['total'] / GIB:.2f} GiB)", markup=False)
  if output:
    path = pathlib.Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, default=float))
    console.print(f"wrote {path}", markup=False)
