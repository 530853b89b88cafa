"""What happened between two rows of the log: metrics summed, and who waited for whom."""

from __future__ import annotations

import contextlib
import math
import time

import jax
import numpy as np

from ssl_jax.metrics import Mean


class NonFiniteLoss(RuntimeError):
  """The loss or its gradient is no longer a number. Nothing was saved since."""


class StepMetrics:
  """Sums the metrics of steps until a row is asked for."""

  def __init__(self, *, step: int, batch_size: int, steps_per_epoch: int, schedule):
    self._batch_size, self._steps_per_epoch, self._schedule = batch_size, steps_per_epoch, schedule
    self._clear(step)

  @contextlib.contextmanager
  def waiting(self):
    """Counts the time inside as time in which the device may wait for the host."""
    began = time.monotonic()
    yield
    self._waited += time.monotonic() - began

  def add(self, step: int, metrics: dict[str, Mean]) -> None:
    """Adds the metrics of the step that ended as number `step`; blocks until that step is done.

    Raises: NonFiniteLoss if its loss or gradient is not finite.
    """
    for name, mean in jax.device_get(metrics).items():
      if name in ("loss", "gradient_norm") and not np.isfinite(mean.total):
        raise NonFiniteLoss(
          f"{name} is {mean.total} at step {step}; the checkpoints from before are good and are "
          "kept. Lower config.optimizer.learning_rate or warm up longer"
        )
      self._sums[name] = mean if name not in self._sums else self._sums[name] + mean

  def row(self, step: int, input_rate: float) -> dict[str, float]:
    """Figures since the last row, which then start anew: means, and images a second.

    `images_per_second` is end to end; `step_images_per_second` leaves the waiting out; `input_images_per_second` is
    what the pipeline's workers could deliver to a device that never keeps them waiting.
    """
    seconds = max(time.monotonic() - self._since, 1e-9)
    images = (step - self._from) * self._batch_size
    with jax.transfer_guard("allow"):
      learning_rate = float(self._schedule(step - 1))
    row = {
      "step": step,
      "epoch": step / self._steps_per_epoch,
      **{name: float(mean.value()) for name, mean in self._sums.items()},
      "learning_rate": learning_rate,
      "images_per_second": images / seconds,
      "input_images_per_second": input_rate if math.isfinite(input_rate) else 0.0,
      "step_images_per_second": images / max(seconds - self._waited, 1e-9),
      "waiting_fraction": min(self._waited / seconds, 1.0),
    }
    self._clear(step)
    return row

  def _clear(self, step: int) -> None:
    self._sums, self._waited, self._since, self._from = {}, 0.0, time.monotonic(), step
