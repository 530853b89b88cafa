"""The picture `reconstructions`: test images, masked and reconstructed by a masked autoencoder."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import cast

import jax
import numpy as np
from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.abilities import Reconstruction, Restorer
from ssl_jax.run.checkpoint import Checkpoints
from ssl_jax.run.restore import CheckpointMissing, Restored, restore
from ssl_jax.view.columns import Column, plot_columns
from ssl_jax.view.request import PictureRequest, crop_images

Reconstruct = Callable[..., Reconstruction]  # (params, model_state, *, mask_ratio) -> of the images shown


def show_reconstructions(request: PictureRequest, output: pathlib.Path) -> None:
  """Draws images masked and reconstructed, at several mask ratios or by each checkpoint of the run.

  Raises: methods.MissingAbility if the network cannot reconstruct images; ValueError if it was trained with
    colorization, for a folder without a checkpoint, an index out of range or a ratio out of range.
  """
  mesh = parallel.make_mesh(jax.devices()[:1])
  run = restore(request.workdir, mesh, step=request.step)
  restorer = run.backbone.ability(
    Restorer,
    "`ssl-jax show reconstructions`",
    cure="train a network with one of them, for example with configs/pretrain/mae_sample.py",
  )
  if run.config.method["name"] == "colorization":
    raise ValueError(
      f"{request.workdir} was trained with method 'colorization', which masks nothing; draw its output with "
      "`ssl-jax show colours`"
    )
  images = crop_images(run.config, request)
  ratios = request.ratios or (run.config.method["mask_ratio"],)
  reconstruct = functools.partial(
    jax.jit(restorer.reconstruct, static_argnames="mask_ratio"),
    images=images,
    key=jax.random.key(request.seed),
  )
  if request.over_epochs:
    groups = _over_epochs(request.workdir, mesh, ratios[0], reconstruct, images)
  else:
    groups = _at_ratios(run, ratios, reconstruct, images)
  plot_columns(output, [[Column("original", images)], *groups], title=_title(run, request))


def _at_ratios(
  run: Restored, ratios: Sequence[float], reconstruct: Reconstruct, images: jax.Array
) -> list[list[Column]]:
  """One group for each mask ratio."""
  groups = []
  for ratio in ratios:
    made = reconstruct(*run.backbone.weights, mask_ratio=ratio)
    groups.append(
      [
        Column(f"{ratio:.0%} masked", made.seen),
        Column("whole prediction", made.predicted),
        Column(f"with visible patches\nerror {_error(made, images):.4f}", made.pasted),
      ]
    )
  return groups


def _over_epochs(
  workdir: str, mesh: Mesh, ratio: float, reconstruct: Reconstruct, images: jax.Array
) -> list[list[Column]]:
  """The masked images, and one column for each checkpoint that the run kept; all use the same masks."""
  with Checkpoints(workdir) as checkpoints:
    steps = checkpoints.steps()
  columns, seen = [], None
  for step in steps:
    try:
      backbone = restore(workdir, mesh, step=step).backbone
    except CheckpointMissing:  # the run is being trained
      continue
    made = reconstruct(*backbone.weights, mask_ratio=ratio)
    seen = made.seen if seen is None else seen
    columns.append(Column(f"step {step}\nerror {_error(made, images):.4f}", made.pasted))
  return [[Column(f"{ratio:.0%} masked", cast(jax.Array, seen))], columns]


def _error(made: Reconstruction, images: jax.Array) -> float:
  """The mean squared error of the masked pixels, whose values are in [0, 1].

  A pixel counts as masked if it differs from the original: visible pixels are equal to it.
  """
  wrong = np.square(np.asarray(made.pasted) - np.asarray(images)).mean(-1)
  return wrong.sum() / max((wrong > 1e-10).sum(), 1)


def _title(run: Restored, request: PictureRequest) -> str:
  step = "" if request.over_epochs else f", step {run.step}"
  pixels = "pixels as predicted"
  if run.config.method["norm_pix"]:
    pixels = "predicted patches have the mean and standard deviation of the true patches"
  encoder, data = run.config.encoder["name"], run.config.data.name
  return f"{encoder} of {request.workdir}, {data} {request.split}{step}; {pixels}"
