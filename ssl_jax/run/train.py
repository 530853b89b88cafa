"""The only training loop. It knows no method by name."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Iterator

import jax

from ssl_jax import parallel
from ssl_jax.config.schema import TrainConfig, differences, to_json
from ssl_jax.core import DataSpec, TrainState
from ssl_jax.data import pipeline
from ssl_jax.log.console import Console
from ssl_jax.log.run_log import STARTS, append
from ssl_jax.log.step_metrics import StepMetrics
from ssl_jax.run.assembly import (
  Assembly,
  abstract_state,
  assemble,
  compile_train_step,
  host_transform,
  open_data,
)
from ssl_jax.run.checkpoint import Checkpoints
from ssl_jax.run.profiling import Profile, dump
from ssl_jax.run.provenance import provenance
from ssl_jax.run.restore import start_from
from ssl_jax.run.stop import Stop, Stopped

# Fields that may change between a run and its resumption: they do not touch what is computed.
HARMLESS = (
  "config.checkpoint.",
  "config.log_every",
  "config.tensorboard",
  "config.sharding",
  "config.data.workers",
  "config.data.cache",
  "config.data.data_dir",
  "config.data.max_bad_fraction",
)


def train(
  config: TrainConfig,
  workdir: str | pathlib.Path,
  *,
  force: bool = False,
  profile: str = "",
  hlo: bool = False,
) -> TrainState:
  """Runs or resumes `config` in `workdir` until its last step; returns the last state.

  Args:
    workdir: holds `checkpoints/`, `metrics.jsonl` and `starts.jsonl`. Calling again goes on from the last checkpoint, bit for bit.
    force: resume even though the config differs from the checkpoint's.
    profile: steps to trace into `workdir/profile`, such as "20-25". hlo: write the compiled step to `workdir/hlo`.
  Raises: ValueError for bad configs or data, before anything compiles; NonFiniteLoss, with nothing bad saved; Stopped,
    on SIGTERM or Ctrl-C, with all saved.
  """
  workdir = pathlib.Path(workdir)
  mesh = parallel.make_mesh()
  parallel.check_batch(config.batch_size, mesh, config.accumulate)
  source = open_data(config.data)
  parts = assemble(config, DataSpec(len(source), source.num_classes, config.batch_size))
  abstract, init = abstract_state(parts, config, mesh)
  identity = {
    "config": to_json(config),
    "data": {"num_examples": len(source), "num_classes": source.num_classes},
  }
  workdir.mkdir(parents=True, exist_ok=True)
  with (
    _space(workdir),
    Checkpoints(workdir, keep=config.checkpoint.keep, keep_every=config.checkpoint.keep_every) as checkpoints,
  ):
    start = _resume_from(checkpoints, identity, workdir, force)
    trace = Profile(workdir / "profile", profile, start=start)
    state, origin = checkpoints.restore(start, abstract) if start else init(), ""
    if config.start.workdir and not start:
      state, origin = start_from(state, config, mesh)
    began = time.monotonic()
    step = compile_train_step(parts, abstract, mesh)
    if jax.process_index() == 0:
      append(
        workdir / STARTS,
        {
          "step": start,
          "total_steps": parts.total_steps,
          "began": time.time(),
          "parameters": _count(state),
          **identity,
          **provenance(mesh),
        },
      )
    with Console(workdir, start=start, total=parts.total_steps, tensorboard=config.tensorboard) as console:
      console.note(_headline(config, parts, source, mesh, start, time.monotonic() - began, state))
      if origin:
        console.note(origin)
      if hlo and jax.process_index() == 0:
        console.note(dump(step, workdir / "hlo"))
      state, stopped = _loop(
        config,
        parts,
        source,
        mesh,
        console,
        step,
        state,
        start,
        trace,
        save=lambda state, step: checkpoints.save(state, identity, step=step),
      )
      checkpoints.wait()
      console.note(f"saved step {int(state.step)} in {workdir}")
  if stopped:
    raise Stopped(
      f"stopped by {stopped} at step {int(state.step)} of {parts.total_steps}; the same command goes on"
    )
  return state


def _loop(
  config: TrainConfig,
  parts: Assembly,
  source,
  mesh,
  console: Console,
  step,
  state: TrainState,
  start: int,
  trace: Profile,
  *,
  save,
) -> tuple[TrainState, str]:
  """Steps `start` to the last; metrics of one step are read while the next runs. (state, signal that stopped it)."""
  batches = pipeline.train_batches(
    source,
    batch_size=config.batch_size,
    seed=config.seed,
    start=start,
    stop=parts.total_steps,
    transform=host_transform(config),
    workers=config.data.workers,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    max_bad_fraction=config.data.max_bad_fraction,
  )
  meter = StepMetrics(
    step=start,
    batch_size=config.batch_size,
    steps_per_epoch=parts.steps_per_epoch,
    schedule=parts.optimizer.schedule,
  )
  unread, stopped = None, ""
  with batches, Stop() as stop, jax.transfer_guard("disallow"):
    ahead = parallel.prefetch(batches, mesh)
    for done in range(start + 1, parts.total_steps + 1):
      with meter.waiting():
        batch = next(ahead)
      trace.before(done)
      state, metrics = step(state, batch)
      if unread is not None:
        meter.add(done - 1, unread)
      unread = metrics
      stopped = stop.poll()
      last = done == parts.total_steps or bool(stopped)
      log = last or done % config.log_every == 0
      due = last or done % config.checkpoint.every_steps == 0
      if log or due:  # nothing is saved before its loss is known to be finite
        meter.add(done, unread)
        unread = None
      if log:
        console.row(meter.row(done, batches.input_rate()))
      if due:
        save(state, done)
      console.step(done)
      if traced := trace.after(done, state):
        console.note(traced)
      if last:
        break
  return state, stopped


def _resume_from(checkpoints: Checkpoints, identity: dict, workdir: pathlib.Path, force: bool) -> int:
  """The step to go on from: 0, or that of the last checkpoint, whose config and data must be these."""
  step, problems = checkpoints.latest()
  if problems:
    print("\n".join(problems) + f"\ngoing on from {f'step {step}' if step else 'the beginning'}", flush=True)
  if not step:
    return 0
  stored = checkpoints.config(step)
  if "imported" in stored:
    raise ValueError(
      f"{workdir} holds imported weights, not a run that could go on; name another --workdir and start from them with "
      f"--config.start.workdir={workdir}"
    )
  changed = [
    line
    for part in ("config", "data")
    for line in differences(stored[part], identity[part], part)
    if not line.startswith(HARMLESS)
  ]
  if changed and not force:
    raise ValueError(
      f"{workdir} holds a run with another config:\n  "
      + "\n  ".join(changed)
      + "\nUse the old values, another --workdir, or --force to go on with the new ones."
    )
  return step


@contextlib.contextmanager
def _space(workdir: pathlib.Path) -> Iterator[None]:
  """Says of a full disk what it means; libraries raise several kinds."""
  try:
    yield
  except (OSError, ValueError, RuntimeError) as error:
    if "No space left" not in str(error):
      raise
    raise OSError(
      f"no space left on the disk of {workdir}: the last step was not saved. The checkpoints from before are whole; free some "
      "space, and the same command goes on from the last of them"
    ) from error


def _count(state: TrainState) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def _headline(config, parts, source, mesh, start, compile_seconds, state) -> str:
  return (
    f"{config.method['name']}, {config.encoder['name']} ({_count(state) / 1e6:.2f}M parameters), {len(source)} "
    f"images of {config.data.name}, batch {config.batch_size}, {mesh.size} x "
    f"{mesh.devices.flat[0].device_kind}; compiled in {compile_seconds:.1f} s\n"
    + (f"going on at step {start} of {parts.total_steps}" if start else f"{parts.total_steps} steps")
  )
