"""Imports weights from other libraries' files as a run, and exports a run's network to such files.

An import accounts for every tensor of the file. If a tensor is missing, unused or has a different shape, the
import fails and the error lists those tensors.
"""

from __future__ import annotations

import hashlib
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from ssl_jax import parallel
from ssl_jax.config.schema import TrainConfig, to_json
from ssl_jax.convert import detectors, files, kinds, names
from ssl_jax.convert.files import Tensors
from ssl_jax.convert.kinds import Options
from ssl_jax.convert.names import Form
from ssl_jax.core import DataSpec, PyTree, Weights
from ssl_jax.log.run_log import STARTS, append
from ssl_jax.models import patches, resnet
from ssl_jax.run.assembly import abstract_state, assemble
from ssl_jax.run.checkpoint import Checkpoints
from ssl_jax.run.provenance import provenance
from ssl_jax.run.restore import only, restore

Path = tuple[str, ...]
STEP = 1  # step number of the only checkpoint of an imported run
PROGRAM = ".stablehlo"  # suffix of an exported program
LISTED = 10  # at most this many problems are listed in an error message


def import_weights(
  kind: str,
  source: str | pathlib.Path,
  workdir: str | pathlib.Path,
  options: Options = Options(),  # noqa: B008 (a NamedTuple is immutable)
) -> Weights:
  """Creates a run in `workdir` whose checkpoint holds the weights of the file `source`.

  `evaluate`, `show` and `config.start.workdir` accept this run like a trained one.

  Args:
    kind: one of kinds.KINDS.
    workdir: a new or empty folder.
    options: what the file itself does not tell; see `kinds.Options`.
  Returns: the weights, in this library's layout.
  Raises: ValueError if `workdir` is not empty, if the kind or the type of the file is unknown, or if tensors
    are missing, unused or of a different shape.
  """
  workdir = pathlib.Path(workdir)
  if workdir.exists() and any(workdir.iterdir()):
    raise ValueError(f"--output={workdir} is not empty; name a new folder")
  tensors, note = files.read_tensors(source)
  try:
    plan = kinds.plan(kind, tensors, note, options)
  except ValueError as error:
    raise ValueError(f"--input={source}: {error}") from error
  parts = assemble(plan.config, plan.data)
  abstract, _ = abstract_state(parts, plan.config, parallel.make_mesh(jax.local_devices()[:1]))
  wanted = only(Weights(abstract.params, abstract.model_state), plan.parts)
  weights = fill(wanted, plan.tensors, plan.form, f"{source}")
  average = fill(wanted, plan.average, plan.form, f"{source}, moving average") if plan.average else None
  identity = {
    **_identity(plan.config, plan.data, plan.parts, plan.class_names),
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
    f"wrote {workdir}: {plan.config.method['name']}, {plan.config.encoder['name']} "
    f"({count / 1e6:.2f}M parameters){partly}, from all tensors of {source}"
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
  """Writes a run's network to `output`, in the format that its suffix names.

  .npz, .safetensors: the tensors, named and laid out as in PyTorch, or, for an encoder that PyTorch's
  libraries do not have, by their paths ("encoder/conv1/kernel") as they are here. `import_weights` reads them
  bit for bit.
  .stablehlo: the encoder with its weights as a serialized program, images f32[b, size, size, 3] in [0, 1] ->
  f32[b, D], for any batch size b. It needs only jax to run:
  `jax.export.deserialize(bytearray(file.read_bytes())).call(images)`.

  Args:
    step: which checkpoint; 0 is the last one.
    which: "params", or "ema" for the moving average.
    size: for .stablehlo, the side of the program's images in pixels; 0 means that of the training images.
  Returns: the path of the written file.
  Raises: ValueError for an unknown suffix, or for a network that PyTorch's libraries have no names for.
  """
  output = pathlib.Path(output)
  if output.suffix not in (".npz", ".safetensors", PROGRAM):
    raise ValueError(f"--output={output}: its suffix is unknown; use .npz, .safetensors or {PROGRAM}")
  run = restore(workdir, parallel.make_mesh(jax.local_devices()[:1]), step=step, weights=which)
  output.parent.mkdir(parents=True, exist_ok=True)
  weights = jax.device_get(run.backbone.weights)
  if output.suffix == PROGRAM:
    files.need("flatbuffers")
    side = size or run.config.augment["size"]
    (batch,) = jax_export.symbolic_shape("b")
    encode = jax.jit(lambda images: run.backbone.method.encode(weights.params, weights.model_state, images))
    program = jax_export.export(encode, platforms=("cpu", "cuda", "tpu"))(
      jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)
    )
    output.write_bytes(program.serialize())
  else:
    note = _identity(run.config, run.data, run.parts, run.backbone.class_names)
    files.write_tensors(output, _torch_tensors(weights, run.config), note)
  print(f"wrote {output}, {output.stat().st_size / 1e6:.1f} MB")
  return output


def _identity(
  config: TrainConfig, data: DataSpec, parts: tuple[str, ...], class_names: tuple[str, ...]
) -> dict[str, Any]:
  return {
    "config": to_json(config),
    "data": {
      "num_examples": data.num_examples,
      "num_classes": data.num_classes,
      "class_names": list(class_names),
    },
    "parts": list(parts),
  }


def _leaves(weights: Weights) -> list[tuple[Path, Any]]:
  """(Pytree path, leaf) of all leaves. The key "batch_stats" is left out of the paths, so that the parameters
  and the BatchNorm statistics of a layer have the same prefix."""
  return [
    (tuple(key.key for key in path if key.key != "batch_stats"), leaf)
    for tree in weights
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  ]


def _counterparts(path: Path, shape: tuple[int, ...], form: Form) -> tuple[list[names.Tensor], bool]:
  """(The PyTorch tensors that correspond to the leaf, whether the leaf stacks one tensor for each layer).

  Raises: ValueError for a leaf that PyTorch's libraries have no name for.
  """
  stacked = path[1] == "blocks" and not form.own
  try:
    if form.detector:
      return detectors.tensors_of(path, bottleneck=form.bottleneck), False
    return names.tensors_of(path, shape[0] if stacked else 1, form), stacked
  except (KeyError, AttributeError) as error:
    raise ValueError(
      f"{'/'.join(path)} has no counterpart in PyTorch's libraries; export the encoder as {PROGRAM}"
    ) from error


def fill(wanted: Weights, tensors: Tensors, form: Form, what: str) -> Weights:
  """The tensors arranged as the pytree `wanted`.

  Args:
    wanted: arrays or their shapes.
    what: names the tensors in an error message.
  Raises: ValueError if tensors are missing, unused or of a different shape.
  """
  made, used, problems = [], set(), []
  for path, leaf in _leaves(wanted):
    counterparts, stacked = _counterparts(path, leaf.shape, form)
    theirs = names.out_of(counterparts, np.zeros(leaf.shape, np.float32), stacked=stacked)
    used |= theirs.keys()
    missing = [name for name in theirs if name not in tensors]
    wrong = [
      f"{name} has shape {list(tensors[name].shape)}, expected {list(value.shape)}"
      for name, value in theirs.items()
      if name in tensors and tensors[name].shape != value.shape
    ] + [
      f"{name} has the type {tensors[name].dtype}, expected floating-point numbers"
      for name in theirs
      if name in tensors and tensors[name].dtype.kind != "f"
    ]
    problems += [f"missing {', '.join(missing)}"] * bool(missing) + wrong
    if not missing and not wrong:
      made.append(jnp.asarray(names.into(counterparts, tensors, stacked=stacked), leaf.dtype))
  problems += [f"unused {name} {list(tensors[name].shape)}" for name in sorted(tensors.keys() - used)]
  if problems:
    raise ValueError(
      f"{what} does not fit the network: "
      + "; ".join(problems[:LISTED])
      + (f"; and {len(problems) - LISTED} more" if len(problems) > LISTED else "")
    )
  return jax.tree.unflatten(jax.tree.structure(wanted), made)


def _form(encoder: Mapping, params: PyTree) -> Form:
  projection = "BatchNorm_0" in params.get("head", {})
  if "blocks" in params["encoder"]:
    return Form(patch=encoder["patch"], projection=projection)
  if encoder["name"] not in resnet.ENCODERS:  # a pre-activation ResNet has conv_stem too, but other blocks
    return Form(own=True)
  return Form(bottleneck="Conv_2" in params["encoder"]["stage1_block1"], projection=projection)


def _torch_tensors(weights: Weights, config: TrainConfig) -> Tensors:
  """All leaves with PyTorch's names and layouts, if it has names for them."""
  found, form = {}, _form(config.encoder, weights.params)
  for path, leaf in _leaves(weights):
    counterparts, stacked = _counterparts(path, leaf.shape, form)
    theirs = names.out_of(counterparts, np.asarray(leaf), stacked=stacked)
    if twice := found.keys() & theirs.keys():
      raise ValueError(
        f"{'/'.join(path)} would be stored as {', '.join(sorted(twice))} like another leaf; export the "
        f"encoder as {PROGRAM}"
      )
    found |= theirs
  if form.patch:  # PyTorch's class token has a position; ours has none, so zeros are written
    side = (config.encoder["image_size"] or config.augment["size"]) // form.patch
    width = found["cls_token"].shape[-1]
    found["pos_embed"] = _positions(found.get("pos_embed", patches.sincos_positions((side, side), width)))
    if "decoder_embed.weight" in found:
      found["decoder_pos_embed"] = _positions(
        patches.sincos_positions((side, side), found["decoder_embed.weight"].shape[0])
      )
  return found


def _positions(table: np.ndarray) -> np.ndarray:
  """f32[L, D] -> f32[1, 1 + L, D]: PyTorch's table, with zeros for the class token in front."""
  return np.concatenate([np.zeros_like(table[:1]), table])[None]
