"""Looking on while a network learns on one test image: what it restores, what it believes, what its loss is."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssl_jax.augment.crops import to_float
from ssl_jax.core import Adaptable, Key, PyTree, Weights
from ssl_jax.ttt.inner_loop import Adapt, merge_params

MOMENTS = 6  # whose reconstruction is drawn
CLASSES = 5  # whose probability is drawn
COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#9aa5b1")


class History(NamedTuple):
  """Learning on one image, moment by moment."""

  image: np.ndarray  # u8[H, W, 3]
  probabilities: np.ndarray  # f32[steps + 1, C]
  losses: np.ndarray  # f32[steps]: each before its step
  seen: np.ndarray | None  # f32[H, W, 3]: what a network that restores images is given, at every moment alike
  restored: list[tuple[int, np.ndarray]]  # (steps done, f32[H, W, 3])


def record_adaptation(
  adapt: Adapt,
  adaptable: Adaptable,
  weights: Weights,
  moving: PyTree,
  image: np.ndarray,
  key: Key,
  index: int,
) -> History:
  """Adapts to the image u8[H, W, 3] numbered `index` with the draws that an evaluation would make; `adapt` keeps its curve."""
  step, seen, restored = jax.jit(adapt.step), None, []
  lesson = jax.jit(adapt.begin)(weights, moving, key, image, np.int32(index))
  moments = {round(x) for x in np.linspace(0, adapt.steps, MOMENTS)}
  restore = adaptable.reconstruct and jax.jit(
    lambda moving: adaptable.reconstruct(
      merge_params(moving, weights.params),
      weights.model_state,
      to_float(jnp.asarray(image))[None],
      jax.random.fold_in(key, index),
    )
  )
  for done in range(adapt.steps + 1):
    if restore and done in moments:
      found = restore(lesson.moving)
      seen = np.asarray(found.seen[0])
      restored.append((done, np.asarray(found.pasted[0])))
    if done < adapt.steps:
      lesson = step(weights, lesson, np.int32(done))
  return History(image, np.asarray(jax.nn.softmax(lesson.curve)), np.asarray(lesson.losses), seen, restored)


def plot_adaptation(
  path: pathlib.Path, history: History, *, label: int, class_names: tuple[str, ...], title: str
) -> None:
  """Writes a PNG: the image and what is restored of it above, the loss and the classes it may be below, over the steps."""
  pictures = [("test image", history.image / np.float32(255))]
  if history.seen is not None:
    pictures += [("what is seen", history.seen)]
  pictures += [
    ("restored by the\ntrained network" if not steps else f"after {steps} steps", picture)
    for steps, picture in history.restored
  ]
  figure = Figure(figsize=(max(1.25 * len(pictures), 7.5), 4.6), layout="constrained", dpi=120)
  above, below = figure.subfigures(2, 1, height_ratios=(1, 1.6))
  for axis, (name, picture) in zip(above.subplots(1, len(pictures), squeeze=False)[0], pictures):
    axis.imshow(np.clip(picture, 0, 1), interpolation="nearest")
    axis.set_title(name, fontsize=7.5)
  for axis in above.axes:
    axis.axis("off")
  left, right = below.subplots(1, 2)
  left.plot(range(len(history.losses)), history.losses, color=COLOURS[0], linewidth=1.4)
  left.set(xlabel="step", ylabel="loss of the task")
  likely = np.argsort(-history.probabilities.max(0), kind="stable")[:CLASSES]
  for colour, name in zip(COLOURS, dict.fromkeys([label, *likely.tolist()])):
    text = (class_names[name] if class_names else str(name)) + (" (true)" if name == label else "")
    right.plot(
      100 * history.probabilities[:, name], color=colour, linewidth=2.2 if name == label else 1.2, label=text
    )
  right.set(xlabel="steps done", ylabel="probability, %", ylim=(-2, 102))
  right.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
  for axis in (left, right):
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=7)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
  figure.suptitle(title, fontsize=8, x=0.01, ha="left")
  figure.savefig(path)
