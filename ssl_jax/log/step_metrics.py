"""Accumulates the metrics and timings of the steps between two rows of the log."""

from __future__ import annotations

import contextlib
import math
import time

import jax
import numpy as np

from ssl_jax.metrics import Mean


class NonFiniteLoss(RuntimeError):
  """The loss or its gradient is not finite. No checkpoint was saved after the failing step."""


class StepMetrics:
  """Accumulates the metrics of steps until `row` is called.

  Args of the constructor:
    step: the number of steps that the run has taken so far.
    batch_size: the global batch size.
    schedule: step -> learning rate.
  """

  def __init__(self, *, step: int, batch_size: int, steps_per_epoch: int, schedule):
    self._batch_size, self._steps_per_epoch, self._schedule = batch_size, steps_per_epoch, schedule
    self._clear(step)

  @contextlib.contextmanager
  def waiting(self):
    """Context manager: counts the time inside as time in which the device may wait for the host."""
    began = time.monotonic()
    yield
    self._waited += time.monotonic() - began

  @contextlib.contextmanager
  def paused(self):
    """Context manager: the time inside does not count."""
    began = time.monotonic()
    yield
    self._since += time.monotonic() - began

  def add(self, step: int, metrics: dict[str, Mean]) -> None:
    """Adds the metrics of step number `step`; blocks until the device has finished that step.

    Raises: NonFiniteLoss if the loss or the gradient norm is not finite.
    """
    for name, mean in jax.device_get(metrics).items():
      if name in ("loss", "gradient_norm") and not np.isfinite(mean.total):
        raise NonFiniteLoss(
          f"{name} is {mean.total} at step {step}; the earlier checkpoints are good and are kept. "
          "Lower config.optimizer.learning_rate or raise config.optimizer.warmup_epochs"
        )
      self._sums[name] = mean if name not in self._sums else self._sums[name] + mean

  def row(self, step: int, input_rate: float) -> dict[str, float]:
    """Returns the row of metrics of the steps since the last row, and resets the accumulators.

    The row has the mean of every metric, the learning rate and rates: `images_per_second` is measured end to
    end, `step_images_per_second` excludes the time spent waiting for input, `input_images_per_second` is what
    the input pipeline alone could deliver to a device that never delays it, and `waiting_fraction` is the
    fraction of the time in which the device may have waited for input.

    Args:
      step: the number of the last step.
      input_rate: images per second of the input pipeline alone; written as 0 if it is not finite.
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
