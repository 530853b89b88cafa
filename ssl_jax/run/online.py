"""Measures the representation of a network while it is trained, and keeps its best checkpoint."""

from __future__ import annotations

import math
import pathlib
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from ssl_jax import parallel, tasks
from ssl_jax.config.schema import EvaluateConfig, EvaluateDataConfig, TrainConfig
from ssl_jax.core import Method, TrainState, Weights
from ssl_jax.log.run_log import ONLINE, lines
from ssl_jax.run.checkpoint import Checkpoints
from ssl_jax.run.evaluate import task_data
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.task import TaskData

BEST = "best"  # the folder of the best checkpoint, in the folder of the run
BATCH = 256  # images that are encoded at once, at least


class Score(NamedTuple):
  """The scores of the network at one step."""

  row: dict[str, float]  # "step", "epoch" and the scalars of the task, as "knn_top1"
  text: str  # for the terminal


class Online:
  """Context manager: measures every `config.online.every_epochs` epochs and at the end.

  All processes must call `measure`. The training is not affected: the state is only read.
  """

  def __init__(
    self,
    config: TrainConfig,
    method: Method,
    *,
    mesh: Mesh,
    workdir: pathlib.Path,
    identity: dict,
    steps_per_epoch: int,
    start: int,
    given: Any = None,
  ):
    """Opens the images, if there is something to measure.

    Args:
      identity: what a checkpoint stores of the run.
      start: the step that the run starts or resumes from.
      given: the data set that a program passes, see `open_data`.
    Raises: ValueError for options or splits that do not exist, or images without classes.
    """
    self._options, self._method, self._mesh, self._identity = config.online, method, mesh, identity
    self._per_epoch, self._key = steps_per_epoch, jax.random.key(config.seed)
    self._every = max(round(config.online.every_epochs * steps_per_epoch), 1)
    self._checkpoints = self._folder = None
    if not config.online.every_epochs:
      return
    self._task = tasks.make(**{"task": config.online.task, **config.online.options})
    self._data = _open(config, mesh, given)
    self._folder = workdir / BEST if config.online.keep_best else None
    rows = [row for row in lines(workdir / ONLINE) if row["step"] <= start]
    self._best = max((_headline(row) for row in rows), default=-math.inf)

  def due(self, step: int, last: bool) -> bool:
    """Whether the network is measured after this step."""
    return bool(self._options.every_epochs) and (last or step % self._every == 0)

  def measure(self, state: TrainState, step: int) -> Score:
    """Runs the task on the network of a state; a state with a new best score is saved."""
    with jax.transfer_guard("allow"):
      backbone = Backbone(Weights(state.params, state.model_state), self._method, {"step": step})
      result = self._task.run(backbone, self._data, self._mesh, self._key)
    scores = {f"{self._options.task}_{name}": float(value) for name, value in result.scalars.items()}
    row = {"step": step, "epoch": step / self._per_epoch, **scores}
    name, score = next(iter(scores.items()))
    text = f"step {step}  {name.replace('_', ' ')} {100 * score:.1f} %"
    if score > self._best:
      self._best, text = score, f"{text}, the best so far"
      if self._checkpoints and step not in self._checkpoints.steps():  # else saved before the run was killed
        self._checkpoints.save(state, self._identity, step=step)
    return Score(row, text)

  def __enter__(self) -> Online:
    if self._folder:
      self._checkpoints = Checkpoints(self._folder, keep=1)
    return self

  def __exit__(self, *_) -> None:
    if self._checkpoints:
      self._checkpoints.wait()
      self._checkpoints.__exit__()


def _open(config: TrainConfig, mesh: Mesh, given: Any) -> TaskData:
  """Opens the images of `config.online`, each pass of which reads them anew."""
  options = config.online
  measured = EvaluateConfig(
    tasks={"online": {"task": options.task, **options.options}},
    data=EvaluateDataConfig(
      train_split=options.train_split,
      test_split=options.test_split,
      cache=config.data.cache,
      workers=config.data.workers,
      interpolation=config.data.interpolation,
      max_bad_fraction=config.data.max_bad_fraction,
    ),
    batch_size=parallel.fill_devices(BATCH, mesh),
    seed=config.seed,
  )
  return task_data(measured, config, mesh, given)


def _headline(row: dict[str, float]) -> float:
  """The first score of a row."""
  return next((value for name, value in row.items() if name not in ("step", "epoch")), -math.inf)
