"""Pictures of what the network sees and of what it makes of it."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from ssl_jax import corrupt, parallel, ttt
from ssl_jax.config.checked import nearest
from ssl_jax.config.schema import DataConfig, EvaluateConfig, TrainConfig
from ssl_jax.core import DataSpec, Reconstruction
from ssl_jax.data import decode, transforms
from ssl_jax.run.assembly import assemble, host_transform, open_data
from ssl_jax.run.checkpoint import Checkpoints
from ssl_jax.run.evaluate import task_data
from ssl_jax.run.restore import Restored, restore
from ssl_jax.tasks.corrupted import CLEAN, SMALL, choose_corruptions, corrupted_splits
from ssl_jax.tasks.ttt import image_at, make_rule, pixels_of
from ssl_jax.view import adaptation, gallery, pictures

VIEWS = 10  # of the recipe, below the ten operations
TILE = 1.15  # side of a reconstruction in the figure, inches


class Wanted(NamedTuple):
  """What a picture is asked for; each picture uses its part."""

  config: TrainConfig | EvaluateConfig | None = None
  workdir: str = ""
  output: str = ""  # "": WORKDIR/pictures/<picture>.png
  index: int = 0  # the (first) image of the data set
  seed: int = 0  # of the random draws
  images: int = 6
  split: str = "test"
  data_dir: str = ""  # a folder of images to draw instead of the run's own
  size: int = 0  # side at which they are shown to the network; 0: as in the run
  ratios: tuple[float, ...] = ()  # (): the run's own
  over_epochs: bool = False
  step: int = 0  # which checkpoint; 0: the last
  corruption: str = "gaussian_noise"  # of the image that is adapted to
  severity: int = 5
  evaluations: str = ""  # NAME=FILE.json,NAME=FILE.json


def show(words: Sequence[str], wanted: Wanted) -> pathlib.Path:
  """Draws the picture named by the one word in `words`; returns the PNG it wrote.

  "augmentations", "task" and "corruptions" need a config, "colours" and "reconstructions" the workdir of a run, "adaptation" both, "errors"
  evaluations.
  Raises: ValueError for an unknown picture, what it needs and lacks, an image that is not there or a file that is no .png.
  """
  if len(words) != 1 or words[0] not in PICTURES:
    raise ValueError(f"`ssl-jax show` takes one picture{nearest(' '.join(words), PICTURES)}")
  draw, needs, example = PICTURES[words[0]]
  for need in needs:
    if not getattr(wanted, need):
      raise ValueError(f"`ssl-jax show {words[0]}` needs --{need}; for example {example}")
  if not wanted.output and not wanted.workdir:
    raise ValueError("--output is missing: the picture to write, a .png")
  name = words[0] + ("-over-epochs" if wanted.over_epochs else "")
  output = pathlib.Path(wanted.output or pathlib.Path(wanted.workdir) / "pictures" / f"{name}.png")
  if output.suffix != ".png":
    raise ValueError(f"--output={output} is not a .png file; give it that suffix")
  draw(wanted, output)
  print(f"wrote {output}")
  return output


def _augmentations(wanted: Wanted, output: pathlib.Path) -> None:
  """One image under each operation of SimCLR's figure 4, and as the recipe shows it to the network."""
  source = _source(wanted.config.data, wanted.index, 1)
  record = source[wanted.index]["image"]
  image = record if isinstance(record, np.ndarray) else decode.decode(record)
  operations_key, views_key = jax.random.split(jax.random.key(wanted.seed))
  tiles = gallery.make_tiles(image, operations_key, max(wanted.config.augment["size"], 96))
  tiles += _views(wanted.config, len(source), record, views_key)
  output.parent.mkdir(parents=True, exist_ok=True)
  gallery.plot_gallery(tiles, output)


def _views(config: TrainConfig, num_examples: int, image, key: jax.Array) -> list[tuple[str, np.ndarray]]:
  """Views as training makes them, the host's part included."""
  one = DataSpec(max(num_examples, config.batch_size), 1000, config.batch_size)
  augment = jax.jit(assemble(config, one).augment)
  found = []
  for draw in range(-(-VIEWS // config.augment["views"])):
    host = host_transform(config)(np.random.default_rng((0, draw)), image)
    made = augment(jax.random.fold_in(key, draw), {"image": host[None]})
    views = made["views"][0] if "views" in made else made["image"]
    found += list(_bytes(views))
  return [(f"{config.augment['name']}, view {i + 1}", view) for i, view in enumerate(found[:VIEWS])]


def _task(wanted: Wanted, output: pathlib.Path) -> None:
  """Images as the recipe crops them and, beside each, the pieces that the method makes of it, with the answers."""
  config = wanted.config
  source = _source(config.data, wanted.index, wanted.images)
  parts = assemble(
    config, DataSpec(max(len(source), config.batch_size), max(source.num_classes, 2), config.batch_size)
  )
  if parts.method.pose is None:
    raise ValueError(
      f"method {config.method['name']!r} sets no task to draw; use a pretext task such as rotation or jigsaw, or "
      "`ssl-jax show augmentations`"
    )
  augment_key, pose_key = jax.random.split(jax.random.key(wanted.seed))
  host = host_transform(config)
  raw = [
    host(np.random.default_rng((wanted.seed, i)), source[i]["image"])
    for i in range(wanted.index, wanted.index + wanted.images)
  ]
  images = jax.jit(parts.augment)(augment_key, {"image": np.stack(raw)})["image"]
  exercise = parts.method.pose(pose_key, images)
  columns = [Column(name, exercise.pieces[:, i]) for i, name in enumerate(exercise.names)]
  answers = np.asarray(exercise.answers)
  asked = (
    f"; answers ({exercise.asked}), a row an image: "
    + "  ".join(" ".join(map(str, row)) for row in answers[: 1 if (answers == answers[:1]).all() else None])
    if exercise.asked
    else ""
  )
  output.parent.mkdir(parents=True, exist_ok=True)
  plot_columns(
    output,
    [[Column("image", images)], columns],
    title=f"What {config.method['name']} shows the network, {config.data.name} {config.data.split}{asked}",
  )


def _corruptions(wanted: Wanted, output: pathlib.Path) -> None:
  """One image under the fifteen corruptions at severities 1, 3 and 5."""
  config, severities = wanted.config, (1, 3, 5)
  size = wanted.size or config.augment["size"]
  table = "cifar" if size < SMALL else "imagenet"
  made = {name: jax.jit(corrupt.make(name, table=table)) for name in corrupt.CORRUPTIONS}
  image = _images(config, wanted._replace(images=1))[0]
  columns = [Column("clean", jnp.stack([image] * 3))]
  for name, function in made.items():
    key = jax.random.key(wanted.seed)
    columns.append(
      Column(name.replace("_", "\n"), jnp.stack([function(key, image, severity) for severity in severities]))
    )
  output.parent.mkdir(parents=True, exist_ok=True)
  plot_columns(
    output,
    [columns[:1], columns[1:8], columns[8:]],
    title=f"Image {wanted.index} of {config.data.name} {wanted.split} at severities {severities}, parameters of {table}; "
    "frost procedural",
  )


def _reconstructions(wanted: Wanted, output: pathlib.Path) -> None:
  """Images hidden in part and restored, at several ratios or by each checkpoint of the run."""
  mesh = parallel.make_mesh(jax.devices()[:1])
  run = restore(wanted.workdir, mesh, step=wanted.step)
  if run.method.reconstruct is None:
    raise ValueError(
      f"{wanted.workdir} was trained with method {run.config.method['name']!r}, which reconstructs nothing; "
      "train one that does, such as configs/pretrain/mae_sample.py"
    )
  if run.config.method["name"] == "colorization":
    raise ValueError(
      f"{wanted.workdir} was trained with method 'colorization'; see it with `ssl-jax show colours`"
    )
  images = _images(run.config, wanted)
  ratios = wanted.ratios or (run.config.method["mask_ratio"],)
  reconstruct = functools.partial(
    jax.jit(run.method.reconstruct, static_argnames="mask_ratio"),
    images=images,
    key=jax.random.key(wanted.seed),
  )
  at = (
    functools.partial(_at_ratios, run, ratios)
    if not wanted.over_epochs
    else functools.partial(_over_epochs, wanted, mesh, ratios[0])
  )
  groups = [[Column("original", images)], *at(reconstruct, images)]
  shown = (
    "predicted patches shown with the true patches' own mean and deviation"
    if run.config.method["norm_pix"]
    else "pixels as predicted"
  )
  title = (
    f"{run.config.encoder['name']} of {wanted.workdir}, {run.config.data.name} {wanted.split}"
    + ("" if wanted.over_epochs else f", step {run.step}")
    + f"; {shown}"
  )
  output.parent.mkdir(parents=True, exist_ok=True)
  plot_columns(output, groups, title=title)


def _colours(wanted: Wanted, output: pathlib.Path) -> None:
  """Grey images, the colours that a network gives them at three temperatures, and the true ones."""
  run = restore(wanted.workdir, parallel.make_mesh(jax.devices()[:1]), step=wanted.step)
  if run.config.method["name"] != "colorization":
    raise ValueError(
      f"{wanted.workdir} was trained with method {run.config.method['name']!r}, which gives no colours; train one "
      "that does, such as configs/pretrain/colorization_cifar10_cpu.py"
    )
  images = _images(run.config, wanted)
  own = run.config.method["temperature"]
  reconstruct = jax.jit(run.method.reconstruct)
  made = {
    t: reconstruct(run.backbone.params, run.backbone.model_state, images, jax.random.key(0), temperature=t)
    for t in (1.0, own, own / 8)
  }
  names = {
    1.0: "mean\nT = 1",
    own: f"annealed mean\nT = {own:g}",
    own / 8: f"near the mode\nT = {own / 8:.2g}",
  }
  groups = [
    [Column("seen", made[own].seen)],
    [Column(names[t], found.pasted) for t, found in made.items()],
    [Column("colours alone", made[own].predicted), Column("truth", images)],
  ]
  output.parent.mkdir(parents=True, exist_ok=True)
  plot_columns(
    output,
    groups,
    title=f"{run.config.encoder['name']} of {wanted.workdir}, step {run.step}; "
    f"{wanted.data_dir or run.config.data.name} {wanted.split}",
  )


def _adaptation(wanted: Wanted, output: pathlib.Path) -> None:
  """One corrupted test image while the network learns on it, with the options of a recipe's first task of kind ttt."""
  options = next(
    (task for name, task in wanted.config.tasks.items() if task.get("task", name) == "ttt"), None
  )
  if options is None:
    raise ValueError(
      "`ssl-jax show adaptation` needs a --config with a task of kind ttt, such as configs/ttt/mae.py:cifar10"
    )
  mesh = parallel.make_mesh(jax.local_devices()[:1])
  run = restore(wanted.workdir, mesh, step=wanted.step, weights=wanted.config.weights)
  adaptable, backbone = run.method.adaptable, run.backbone
  if adaptable is None:
    raise ValueError(
      f"{wanted.workdir} was trained with method {run.config.method['name']!r}, which learns nothing at test time; "
      "train one with method 'joint' or 'mae_probe'"
    )
  data = task_data(wanted.config, run.config)
  learn = ttt.make_adapt(
    adaptable,
    data.augment,
    make_rule(
      options["optimizer"], **{name: options[name] for name in ("learning_rate", "momentum", "weight_decay")}
    ),
    curve=True,
    **{name: options[name] for name in ("steps", "copies", "micro_batches", "threshold")},
  )
  chosen = choose_corruptions(
    "ttt",
    corruptions=(wanted.corruption,),
    severities=(wanted.severity,),
    table=options["table"],
    textures=options["textures"],
    released=options["released"],
    examples=wanted.index + 1,
    clean=True,
  )
  key = jax.random.key(wanted.config.seed)
  segment = image_at(corrupted_splits(chosen, backbone, pixels_of, data, key)[1][0], wanted.index, mesh)
  weights, moving = ttt.initial_params(backbone, options["moves"])
  history = adaptation.record_adaptation(
    learn, adaptable, weights, moving, segment.images[0], key, wanted.index
  )
  output.parent.mkdir(parents=True, exist_ok=True)
  adaptation.plot_adaptation(
    output,
    history,
    label=int(segment.labels[0]),
    class_names=data.class_names,
    title=(
      f"Image {wanted.index} of {data.protocol['data']} {data.protocol['test_split']}, {wanted.corruption} at severity "
      f"{wanted.severity}: {run.config.method['name']} learning on {options['copies']} copies a step"
    ),
  )


def _errors(wanted: Wanted, output: pathlib.Path) -> None:
  """What evaluations under corruption found, side by side."""
  series = {}
  for word in wanted.evaluations.split(","):
    name, _, file = word.rpartition("=")
    if not pathlib.Path(file).is_file():
      raise ValueError(
        f"--evaluations={wanted.evaluations}: there is no file {file!r}; write NAME=FILE.json,NAME=FILE.json"
      )
    found = json.loads(pathlib.Path(file).read_text())
    protocol = found["protocol"]
    if "error" not in protocol:
      raise ValueError(f"{file} holds no errors under corruption; use those of the tasks robustness and ttt")
    rows, clean = protocol["test_rows"], found["scalars"].get("clean_error")
    errors = ({} if clean is None else {CLEAN: {"0": clean}}) | protocol["error"]
    spread = protocol.get("standard_error") or {
      name: {s: math.sqrt(e * (1 - e) / rows) for s, e in row.items()} for name, row in errors.items()
    }
    series[name or pathlib.Path(file).stem] = pictures.bars_of(errors, spread)
  output.parent.mkdir(parents=True, exist_ok=True)
  pictures.plot_bars(output, series)


class Column(NamedTuple):
  """One column of a picture: what stands above it and the images in it, f32[N, H, W, 3] in [0, 1]."""

  title: str
  images: jax.Array


def _at_ratios(
  run: Restored, ratios, reconstruct: Callable[..., Reconstruction], images
) -> list[list[Column]]:
  groups = []
  for ratio in ratios:
    made = reconstruct(run.backbone.params, run.backbone.model_state, mask_ratio=ratio)
    groups.append(
      [
        Column(f"{ratio:.0%} removed", made.seen),
        Column("all it predicts", made.predicted),
        Column(f"with visible patches\nerror {_error(made, images):.4f}", made.pasted),
      ]
    )
  return groups


def _over_epochs(
  wanted: Wanted, mesh, ratio: float, reconstruct: Callable[..., Reconstruction], images
) -> list[list[Column]]:
  """The same images and masks by each kept checkpoint."""
  with Checkpoints(wanted.workdir) as checkpoints:
    steps = checkpoints.steps()
  columns, seen = [], None
  for step in steps:
    run = restore(wanted.workdir, mesh, step=step)
    made = reconstruct(run.backbone.params, run.backbone.model_state, mask_ratio=ratio)
    seen = made.seen if seen is None else seen
    columns.append(Column(f"step {step}\nerror {_error(made, images):.4f}", made.pasted))
  return [[Column(f"{ratio:.0%} removed", seen)], columns]


def _error(made: Reconstruction, images) -> float:
  """Mean squared error of a removed pixel, of values in [0, 1]; where nothing was hidden the two agree exactly."""
  wrong = np.square(np.asarray(made.pasted) - np.asarray(images)).mean(-1)
  return wrong.sum() / max((wrong > 1e-10).sum(), 1)


def plot_columns(path: pathlib.Path, groups: Sequence[Sequence[Column]], *, title: str) -> None:
  """Writes a PNG: a row an image, a column each Column, groups apart from each other."""
  columns = [column for group in groups for column in [*group, None]][:-1]
  rows = len(columns[0].images)
  widths = [0.12 if column is None else 1.0 for column in columns]
  figure = Figure(figsize=(TILE * sum(widths) + 0.2, TILE * rows + 0.72), dpi=120)
  axes = figure.subplots(
    rows,
    len(columns),
    squeeze=False,
    gridspec_kw=dict(
      width_ratios=widths,
      wspace=0.04,
      hspace=0.04,
      left=0.01,
      right=0.99,
      bottom=0.01,
      top=1 - 0.62 / (TILE * rows + 0.72),
    ),
  )
  for across, column in enumerate(columns):
    for down, axis in enumerate(axes[:, across]):
      axis.axis("off")
      if column is not None:
        axis.imshow(_bytes(column.images[down]), interpolation="nearest")
    if column is not None:
      axes[0, across].set_title(column.title, fontsize=7.5)
  figure.text(0.01, 0.99, title, fontsize=8, ha="left", va="top")
  figure.savefig(path)


def _images(config: TrainConfig, wanted: Wanted) -> jax.Array:
  """f32[N, size, size, 3]: successive images of the split as evaluation shows them."""
  data, size = (
    dataclasses.replace(config.data, split=wanted.split, cache=False),
    wanted.size or config.augment["size"],
  )
  if wanted.data_dir:
    data = dataclasses.replace(data, name="folder", data_dir=wanted.data_dir)
  source = _source(data, wanted.index, wanted.images)
  cut = transforms.resize_center_crop(size, interpolation=data.interpolation)
  rng = np.random.default_rng(0)  # the transform takes one and draws nothing
  chosen = [cut(rng, source[i]["image"]) for i in range(wanted.index, wanted.index + wanted.images)]
  return jnp.asarray(np.stack(chosen), jnp.float32) / 255


def _source(data: DataConfig, index: int, count: int):
  source = open_data(data)
  if count < 1 or not 0 <= index <= len(source) - count:
    raise ValueError(
      f"--index={index}" + (f" --images={count}" if count != 1 else "") + f": the data set has {len(source)} "
      f"images; use 0 to {len(source) - max(count, 1)}"
    )
  return source


def _bytes(images) -> np.ndarray:
  return np.asarray(jnp.clip(images, 0, 1) * 255 + 0.5, np.uint8)


RESTORED = {
  "mae": "reconstructions",
  "colorization": "colours",
}  # by method, the picture of what it makes of test images
PICTURES = {  # function, what it needs, an example
  "adaptation": (
    _adaptation,
    ("workdir", "config"),
    "ssl-jax show adaptation --workdir=runs/probe --config=configs/ttt/mae.py:cifar10",
  ),
  "errors": (
    _errors,
    ("evaluations",),
    "ssl-jax show errors --evaluations=joint=A.json,online=B.json --output=errors.png",
  ),
  "task": (
    _task,
    ("config",),
    "ssl-jax show task --config=configs/pretrain/jigsaw_cifar10_cpu.py --output=task.png",
  ),
  "augmentations": (
    _augmentations,
    ("config",),
    "ssl-jax show augmentations --config=configs/pretrain/moco_sample.py --output=views.png",
  ),
  "corruptions": (
    _corruptions,
    ("config",),
    "ssl-jax show corruptions --config=configs/pretrain/moco_sample.py --output=corruptions.png",
  ),
  "colours": (_colours, ("workdir",), "ssl-jax show colours --workdir=runs/colorization"),
  "reconstructions": (
    _reconstructions,
    ("workdir",),
    "ssl-jax show reconstructions --workdir=runs/mae --ratios=0.75,0.8,0.85,0.95",
  ),
}
