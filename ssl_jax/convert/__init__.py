"""Weights that people already have become a run's checkpoint, and a run's network becomes weights that others can use.

Every tensor of a file is accounted for: what is missing, unused or of another shape is listed and refused.
"""

from __future__ import annotations

import hashlib
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from ssl_jax import parallel
from ssl_jax.config.schema import TrainConfig, to_json
from ssl_jax.convert import files, kinds, names
from ssl_jax.convert.files import Tensors
from ssl_jax.convert.kinds import Options
from ssl_jax.convert.names import Form
from ssl_jax.core import DataSpec, PyTree, Weights
from ssl_jax.log.run_log import STARTS, append
from ssl_jax.models import patches
from ssl_jax.run.assembly import abstract_state, assemble
from ssl_jax.run.checkpoint import Checkpoints
from ssl_jax.run.provenance import provenance
from ssl_jax.run.restore import only, restore

Path = tuple[str, ...]
STEP = 1  # of the one checkpoint of an imported run
PROGRAM = ".stablehlo"
LISTED = 10  # names in an error


def import_weights(
  kind: str, source: str | pathlib.Path, workdir: str | pathlib.Path, options: Options = Options()
) -> Weights:
  """Makes `workdir` a run whose checkpoint holds the weights in the file `source`; evaluate, show and start from it as from any other.

  Args:
    kind: one of kinds.KINDS.
  Raises: ValueError for a workdir that holds a run, an unknown kind or file, or tensors that are missing, unused or of another shape.
  """
  workdir = pathlib.Path(workdir)
  if workdir.exists() and any(workdir.iterdir()):
    raise ValueError(f"--output={workdir} is not empty; name a new folder")
  tensors, note = files.read_tensors(source)
  plan = kinds.plan(kind, tensors, note, options)
  parts = assemble(plan.config, plan.data)
  abstract, _ = abstract_state(parts, plan.config, parallel.make_mesh(jax.local_devices()[:1]))
  wanted = only(Weights(abstract.params, abstract.model_state), plan.parts)
  weights = _fill(wanted, plan.tensors, plan.form, f"{source}")
  average = plan.average and _fill(wanted, plan.average, plan.form, f"{source}, moving average")
  identity = {
    **_identity(plan.config, plan.data, plan.parts),
    "imported": f"{kind} from {pathlib.Path(source).name}",
  }
  with Checkpoints(workdir, keep=1) as checkpoints:
    checkpoints.save_weights(weights, average, identity, step=STEP)
    checkpoints.wait()
  count = sum(leaf.size for leaf in jax.tree.leaves(weights.params))
  append(
    workdir / STARTS,
    {
      "step": STEP,
      "total_steps": STEP,
      "began": time.time(),
      "parameters": count,
      **identity,
      "sha256": hashlib.sha256(pathlib.Path(source).read_bytes()).hexdigest(),
      **provenance(parallel.make_mesh(jax.local_devices()[:1])),
    },
  )
  partly = f", {' and '.join(plan.parts)} only" if plan.parts else ""
  print(
    f"wrote {workdir}: {plan.config.method['name']}, {plan.config.encoder['name']} ({count / 1e6:.2f}M parameters){partly}, from "
    f"all that {source} holds"
  )
  return weights


def export_weights(
  workdir: str | pathlib.Path,
  output: str | pathlib.Path,
  *,
  step: int = 0,
  which: str = "params",
  size: int = 0,
) -> pathlib.Path:
  """Writes a run's network for others, by the suffix of `output`.

  .npz, .safetensors: all tensors under PyTorch's names and as PyTorch lays them out: what `import_weights` reads, bit for bit.
  .stablehlo: the encoder as a program with its weights, of images f32[b, size, size, 3] in [0, 1] for any b, -> f32[b, D]; it runs with
  jax alone: `jax.export.deserialize(bytearray(file.read_bytes())).call(images)`.
  Args:
    which: "params" or "ema". size: side of the images; 0: those it was trained on.
  Raises: ValueError for another suffix, or a network that has no names in PyTorch.
  """
  output = pathlib.Path(output)
  if output.suffix not in (".npz", ".safetensors", PROGRAM):
    raise ValueError(f"--output={output}: no such kind of file; use .npz, .safetensors or {PROGRAM}")
  run = restore(workdir, parallel.make_mesh(jax.local_devices()[:1]), step=step, weights=which)
  output.parent.mkdir(parents=True, exist_ok=True)
  weights = jax.device_get(Weights(run.backbone.params, run.backbone.model_state))
  if output.suffix == PROGRAM:
    files.need("flatbuffers")
    side = size or run.config.augment["size"]
    (batch,) = jax_export.symbolic_shape("b")
    encode = jax.jit(lambda images: run.backbone.encode(*weights, images))
    program = jax_export.export(encode, platforms=("cpu", "cuda", "tpu"))(
      jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)
    )
    output.write_bytes(program.serialize())
  else:
    files.write_tensors(output, _tensors(weights, run.config), _identity(run.config, run.data, run.parts))
  print(f"wrote {output}, {output.stat().st_size / 1e6:.1f} MB")
  return output


def _identity(config: TrainConfig, data: DataSpec, parts: tuple[str, ...]) -> dict[str, Any]:
  return {
    "config": to_json(config),
    "data": {"num_examples": data.num_examples, "num_classes": data.num_classes},
    "parts": list(parts),
  }


def _leaves(weights: Weights) -> list[tuple[Path, Any]]:
  """By path without "batch_stats": parameters and statistics of a layer stand under one name."""
  return [
    (tuple(key.key for key in path if key.key != "batch_stats"), leaf)
    for tree in weights
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  ]


def _slots(path: Path, shape: tuple[int, ...], form: Form) -> tuple[list[names.Tensor], bool]:
  stacked = path[1] == "blocks"
  return names.tensors_of(path, shape[0] if stacked else 1, form), stacked


def _fill(wanted: Weights, tensors: Tensors, form: Form, what: str) -> Weights:
  made, used, problems = [], set(), []
  for path, leaf in _leaves(wanted):
    slots, stacked = _slots(path, leaf.shape, form)
    missing = [slot.name for slot in slots if slot.name not in tensors]
    used |= {slot.name for slot in slots}
    if missing:
      problems.append(f"missing {', '.join(missing)}")
      continue
    try:
      found = names.into(slots, tensors, stacked=stacked)
    except ValueError:  # of another rank
      found = None
    if found is None or found.shape != leaf.shape:
      theirs = names.out_of(slots, np.zeros(leaf.shape, np.float32), stacked=stacked)
      problems += [
        f"{name} is {list(tensors[name].shape)}, wanted {list(value.shape)}"
        for name, value in theirs.items()
        if tensors[name].shape != value.shape
      ]
      continue
    made.append(jnp.asarray(found, leaf.dtype))
  problems += [f"unused {name} {list(tensors[name].shape)}" for name in sorted(tensors.keys() - used)]
  if problems:
    raise ValueError(
      f"{what} does not fit: "
      + "; ".join(problems[:LISTED])
      + (f"; and {len(problems) - LISTED} more" if len(problems) > LISTED else "")
    )
  return jax.tree.unflatten(jax.tree.structure(wanted), made)


def _form(encoder: dict, params: PyTree) -> Form:
  if "blocks" in params["encoder"]:
    return Form(patch=encoder["patch"])
  if "conv_stem" not in params["encoder"]:
    raise ValueError(
      f"config.encoder.name {encoder['name']!r} has no counterpart in PyTorch's libraries; export it as {PROGRAM}"
    )
  return Form(bottleneck="Conv_2" in params["encoder"]["stage1_block1"])


def _tensors(weights: Weights, config: TrainConfig) -> Tensors:
  found, form = {}, _form(config.encoder, weights.params)
  for path, leaf in _leaves(weights):
    try:
      slots, stacked = _slots(path, leaf.shape, form)
    except (KeyError, AttributeError) as error:
      raise ValueError(
        f"{'/'.join(path)} has no counterpart in PyTorch's libraries; export the encoder as {PROGRAM}"
      ) from error
    found |= names.out_of(slots, np.asarray(leaf), stacked=stacked)
  if form.patch:  # the class token has no position of its own here
    side = (config.encoder["image_size"] or config.augment["size"]) // form.patch
    width = found["cls_token"].shape[-1]
    found["pos_embed"] = _positions(found.get("pos_embed", patches.sincos_positions((side, side), width)))
    if "decoder_embed.weight" in found:
      found["decoder_pos_embed"] = _positions(
        patches.sincos_positions((side, side), found["decoder_embed.weight"].shape[0])
      )
  return found


def _positions(table: np.ndarray) -> np.ndarray:
  return np.concatenate([np.zeros_like(table[:1]), table])[None]
