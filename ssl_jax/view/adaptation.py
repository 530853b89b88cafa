"""The picture `adaptation`: test-time training on one corrupted image, step by step."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssl_jax import parallel, ttt
from ssl_jax.abilities import Adaptable
from ssl_jax.augment.crops import to_float
from ssl_jax.config.schema import EvaluateConfig
from ssl_jax.core import Key, PyTree, Weights
from ssl_jax.run.evaluate import task_data
from ssl_jax.run.restore import restore
from ssl_jax.tasks.adapted_splits import Segment, image_at, pixels_of
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.classification import in_own_classes
from ssl_jax.tasks.corrupted import choose_corruptions, corrupted_splits
from ssl_jax.tasks.task import TaskData
from ssl_jax.tasks.ttt import CURE, Settings, make_adapt, with_objective
from ssl_jax.view.class_names import short_names
from ssl_jax.view.request import PictureRequest

MOMENTS = 6  # how many reconstructions are drawn
CLASSES = 5  # how many classes' probabilities are drawn, beside the true class
COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#9aa5b1")


class History(NamedTuple):
  """Adaptation to one image, step by step."""

  image: np.ndarray  # uint8[H, W, 3]
  probabilities: np.ndarray  # f32[steps + 1, C]: before adaptation and after each step
  losses: np.ndarray  # f32[steps]: each before its step
  # f32[H, W, 3]: the input of a network that reconstructs images, the same at all steps; None: it does not
  seen: np.ndarray | None
  restored: list[tuple[int, np.ndarray]]  # (steps completed, f32[H, W, 3]), at most MOMENTS of them


def show_adaptation(request: PictureRequest, output: pathlib.Path) -> None:
  """Draws how the network of a run adapts to one corrupted test image.

  The options of adaptation are those of the first task of kind "ttt" in the config.
  Raises: methods.MissingAbility if the network has no task to learn at test time; ValueError if the config
    has no task of kind "ttt", for an unknown corruption or severity and for an index out of range.
  """
  config = cast(EvaluateConfig, request.config)
  options = _first_task(config)
  mesh = parallel.make_mesh(jax.local_devices()[:1])
  run = restore(request.workdir, mesh, step=request.step, weights=config.weights)
  settings = Settings(**{name: options[name] for name in Settings._fields})._replace(curve=True)
  backbone = with_objective(settings, run.backbone)
  adaptable = backbone.ability(Adaptable, "`ssl-jax show adaptation`", cure=CURE)
  data = in_own_classes(run.backbone, task_data(config, run.config, mesh))
  adapt = make_adapt(settings, adaptable, data.augment)
  key = jax.random.key(config.seed)
  segment = _corrupted_image(request, options, run.backbone, data, mesh, key)
  sample = {name: leaf[0] for name, leaf in segment.samples.items()}
  weights, trainable = ttt.initial_params(backbone, settings.trainable)
  history = record_adaptation(adapt, adaptable, weights, trainable, sample, key, request.index)
  name, split = data.protocol["data"], data.protocol["test_split"]
  title = (
    f"Image {request.index} of {name} {split}, {request.corruption} at severity {request.severity}: "
    f"{run.config.method['name']} adapts with {settings.copies} copies in each step"
  )
  label = int(segment.labels[0])
  plot_adaptation(output, history, label=label, class_names=data.class_names, title=title)


def record_adaptation(
  adapt: ttt.Adapt,
  adaptable: Adaptable,
  weights: Weights,
  trainable: PyTree,
  sample: Mapping[str, np.ndarray],
  key: Key,
  index: int,
) -> History:
  """Adapts to one sample with the same random draws as an evaluation and records every step.

  Args:
    adapt: made with `curve=True`.
    weights, trainable: of `ttt.initial_params`.
    sample: {"image": uint8[H, W, 3]}.
    index: the position of the sample in the test split, which determines the random draws.
  """
  image = sample["image"]
  step, seen, restored = jax.jit(adapt.step), None, []
  state = jax.jit(adapt.begin)(weights, trainable, key, sample, np.int32(index))
  moments = {round(x) for x in np.linspace(0, adapt.steps, MOMENTS)}
  reconstruct = adaptable.reconstruct
  restore_image = reconstruct and jax.jit(
    lambda trainable: reconstruct(
      ttt.merge_params(trainable, weights.params),
      weights.model_state,
      to_float(jnp.asarray(image))[None],
      jax.random.fold_in(key, index),
    )
  )
  for done in range(adapt.steps + 1):
    if restore_image and done in moments:
      found = restore_image(state.trainable)
      seen = np.asarray(found.seen[0])
      restored.append((done, np.asarray(found.pasted[0])))
    if done < adapt.steps:
      state = step(weights, state, np.int32(done))
  return History(image, np.asarray(jax.nn.softmax(state.curve)), np.asarray(state.losses), seen, restored)


def plot_adaptation(
  path: pathlib.Path, history: History, *, label: int, class_names: tuple[str, ...], title: str
) -> None:
  """Writes a PNG: above, the image and its reconstructions; below, the loss and the most likely classes.

  The folder of `path` is created if it does not exist.

  Args:
    label: the true class, which is always drawn.
    class_names: by class; (): classes are called by their numbers.
  """
  images = [("test image", history.image / np.float32(255))]
  if history.seen is not None:
    images += [("network input", history.seen)]
  images += [
    (f"after {steps} step{'s' * (steps > 1)}" if steps else "restored by the\ntrained network", image)
    for steps, image in history.restored
  ]
  figure = Figure(figsize=(max(1.25 * len(images), 7.5), 4.6), layout="constrained", dpi=120)
  above, below = cast(np.ndarray, figure.subfigures(2, 1, height_ratios=(1, 1.6)))
  for axis, (name, image) in zip(above.subplots(1, len(images), squeeze=False)[0], images):
    axis.imshow(np.clip(image, 0, 1), interpolation="nearest")
    axis.set_title(name, fontsize=7.5)
    axis.axis("off")
  left, right = below.subplots(1, 2)
  left.plot(range(len(history.losses)), history.losses, color=COLOURS[0], linewidth=1.4)
  left.set(xlabel="step", ylabel="self-supervised loss")
  _plot_probabilities(right, history.probabilities, label, class_names)
  for axis in (left, right):
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=7)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
  figure.suptitle(title, fontsize=8, x=0.01, ha="left")
  path.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path)


def _first_task(config: EvaluateConfig) -> Mapping:
  """The options of the first task of kind "ttt". Raises ValueError if there is none."""
  for name, options in config.tasks.items():
    if options.get("task", name) == "ttt":
      return options
  raise ValueError(
    "`ssl-jax show adaptation` needs a --config with a task of kind ttt, such as configs/ttt/mae.py:cifar10"
  )


def _corrupted_image(
  request: PictureRequest, options: Mapping, backbone: Backbone, data: TaskData, mesh: Mesh, key: Key
) -> Segment:
  """The image that is drawn, corrupted exactly as an evaluation with these options would corrupt it."""
  chosen = choose_corruptions(
    "ttt",
    corruptions=(request.corruption,),
    severities=(request.severity,),
    examples=request.index + 1,
    clean=True,
    **{name: options[name] for name in ("table", "textures", "released")},
  )
  _, splits = corrupted_splits(chosen, backbone, pixels_of, data, mesh, key)
  return image_at(splits[0], request.index, mesh)


def _plot_probabilities(
  axis: Axes, probabilities: np.ndarray, label: int, class_names: tuple[str, ...]
) -> None:
  """Draws the probabilities of the true class and of the classes that are most likely at any step."""
  names = short_names(class_names, probabilities.shape[1])
  likely = np.argsort(-probabilities.max(0), kind="stable")[:CLASSES]
  for colour, number in zip(COLOURS, dict.fromkeys([label, *likely.tolist()])):
    true = number == label
    name = names[number] + (" (true)" if true else "")
    axis.plot(100 * probabilities[:, number], color=colour, linewidth=2.2 if true else 1.2, label=name)
  axis.set(xlabel="steps completed", ylabel="probability, %", ylim=(-2, 102))
  axis.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
