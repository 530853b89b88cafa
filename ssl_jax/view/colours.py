"""The picture `colours`: grey test images, coloured by a network that was trained with colorization."""

from __future__ import annotations

import pathlib

import jax

from ssl_jax import parallel
from ssl_jax.abilities import Restorer
from ssl_jax.run.restore import restore
from ssl_jax.view.columns import Column, plot_columns
from ssl_jax.view.request import PictureRequest, crop_images


def show_colours(request: PictureRequest, output: pathlib.Path) -> None:
  """Draws grey images, the colours that a network predicts for them at three temperatures, and the true ones.

  Raises: ValueError if the network was not trained with colorization, for a folder without a checkpoint and
    for an index out of range.
  """
  run = restore(request.workdir, parallel.make_mesh(jax.devices()[:1]), step=request.step)
  method = run.config.method
  if method["name"] != "colorization":
    raise ValueError(
      f"{request.workdir} was trained with method {method['name']!r}, which predicts no colours; train a "
      "network that does, for example with configs/pretrain/colorization_cifar10_cpu.py"
    )
  restorer = run.backbone.ability(Restorer, "`ssl-jax show colours`")
  images = crop_images(run.config, request)
  reconstruct = jax.jit(restorer.reconstruct)
  own = method["temperature"]
  names = {
    1.0: "mean\nT = 1",
    own: f"annealed mean\nT = {own:g}",
    own / 8: f"near the mode\nT = {own / 8:.2g}",
  }
  made = {
    temperature: reconstruct(*run.backbone.weights, images, jax.random.key(0), temperature=temperature)
    for temperature in names
  }
  groups = [
    [Column("input", made[own].seen)],
    [Column(names[temperature], found.pasted) for temperature, found in made.items()],
    [Column("colours alone", made[own].predicted), Column("truth", images)],
  ]
  data = request.data_dir or run.config.data.name
  title = f"{run.config.encoder['name']} of {request.workdir}, step {run.step}; {data} {request.split}"
  plot_columns(output, groups, title=title)
