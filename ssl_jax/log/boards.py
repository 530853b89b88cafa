"""Destinations of the rows of metrics beside the files: TensorBoard, Weights & Biases, callbacks."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Row = dict[str, float]  # with "step": the number of the last step
WANDB_RUN = "wandb_run"  # the file with the run's name at Weights & Biases, by which a resumed run goes on


class Board(NamedTuple):
  """One destination of rows."""

  write: Callable[[Row], Any]
  close: Callable[[], Any] = lambda: None


def open_boards(
  workdir: pathlib.Path,
  *,
  tensorboard: bool = False,
  wandb: str = "",
  config: Mapping[str, Any] | None = None,
  callbacks: Sequence[Callable[[Row], Any]] = (),
) -> tuple[Board, ...]:
  """Opens the destinations of the rows of a run.

  Args:
    workdir: the folder of the run.
    tensorboard: write scalars for TensorBoard into `workdir`.
    wandb: a project of Weights & Biases; "": none. WANDB_MODE=offline in the environment writes files into
      `workdir` and needs no account.
    config: of the run, for Weights & Biases.
    callbacks: functions of a row. An error that one of them raises ends the run; it resumes from the last
      checkpoint.
  Raises: ValueError if what a destination needs is not installed.
  """
  found = [Board(callback) for callback in callbacks]
  found += [_tensorboard(workdir)] if tensorboard else []
  return (*found, *([_wandb(workdir, wandb, config or {})] if wandb else []))


def _tensorboard(workdir: pathlib.Path) -> Board:
  try:
    import tensorboardX  # pyright: ignore[reportMissingImports]
  except ImportError as error:
    raise ValueError(
      "config.tensorboard is set, but tensorboardX is not installed; pip install 'ssl_jax[tensorboard]'"
    ) from error
  writer = tensorboardX.SummaryWriter(str(workdir))

  def write(row: Row) -> None:
    for name, value in row.items():
      writer.add_scalar(name, value, row["step"])

  return Board(write, writer.close)


def _wandb(workdir: pathlib.Path, project: str, config: Mapping[str, Any]) -> Board:
  try:
    import wandb  # pyright: ignore[reportMissingImports]
  except ImportError as error:
    raise ValueError(
      f"config.wandb is {project!r}, but wandb is not installed; pip install 'ssl_jax[wandb]'"
    ) from error
  kept = workdir / WANDB_RUN
  name = kept.read_text() if kept.exists() else None
  run = wandb.init(project=project, dir=str(workdir), config=dict(config), id=name, resume="allow")
  kept.write_text(run.id)
  return Board(lambda row: run.log(row, step=int(row["step"])), run.finish)
