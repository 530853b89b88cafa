"""The training loop. There is only this one; it contains nothing that is specific to a method."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.config.recipe_builder import completed
from ssl_jax.config.schema import TrainConfig, differences, to_json
from ssl_jax.core import DataSpec, Step, TrainState
from ssl_jax.data import classes, pipeline
from ssl_jax.data.elements import Transform
from ssl_jax.data.reader import Source
from ssl_jax.log.console import Console
from ssl_jax.log.output import continue_if_closed
from ssl_jax.log.run_log import STARTS, append
from ssl_jax.log.step_metrics import StepMetrics
from ssl_jax.log.waiting import notice, waiting
from ssl_jax.run.assembly import Assembly, abstract_state, assemble, compile_train_step, open_data
from ssl_jax.run.checkpoint import Checkpoints
from ssl_jax.run.held_batches import HeldBatches
from ssl_jax.run.lock import Lock
from ssl_jax.run.profiling import Profile, dump
from ssl_jax.run.provenance import provenance
from ssl_jax.run.stop import Stop, Stopped
from ssl_jax.run.warm_start import start_from

# Options that may change between a run and its resumption: they do not affect what is computed.
HARMLESS = (
  "config.checkpoint.",
  "config.log_every",
  "config.tensorboard",
  "config.sharding",
  "config.data.workers",
  "config.data.cache",
  "config.data.device_cache",
  "config.data.data_dir",
  "config.data.max_bad_fraction",
)


class Run(NamedTuple):
  """What the training loop works on."""

  config: TrainConfig
  parts: Assembly
  source: Source
  transform: Transform
  mesh: Mesh
  start: int  # number of steps that are already done


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
    workdir: holds `checkpoints/`, `metrics.jsonl` and `starts.jsonl`. Another call resumes from the last
      checkpoint, with bit-identical results.
    force: resume even if the config differs from the checkpoint's.
    profile: steps to trace into `workdir/profile`, such as "20-25".
    hlo: write the compiled step to `workdir/hlo`.
  Raises: ValueError for a wrong config or wrong data, or if another training runs in `workdir`, before
    anything is compiled; LockLost if another one has taken `workdir` over; NonFiniteLoss, before a state with
    such a loss is saved; Stopped on SIGTERM, SIGHUP or Ctrl-C, after the state is saved.
  """
  workdir = pathlib.Path(workdir).expanduser()
  mesh = parallel.make_mesh()
  parallel.check_batch(config.batch_size, mesh, config.accumulate)
  with waiting(f"reading the data set {config.data.name}", say=_say):
    source, transform = open_data(config)
  parts = assemble(config, DataSpec(len(source), source.num_classes, config.batch_size))
  abstract, init = abstract_state(parts, config, mesh)
  identity = _identity(config, source)
  workdir.mkdir(parents=True, exist_ok=True)
  with (
    continue_if_closed(),
    _explain_full_disk(workdir),
    Lock(workdir) as lock,
    Checkpoints(workdir, keep=config.checkpoint.keep, keep_every=config.checkpoint.keep_every) as checkpoints,
  ):
    start = _resume_from(checkpoints, identity, workdir, force)
    run = Run(config, parts, source, transform, mesh, start)
    trace = Profile(workdir / "profile", profile, start=start)
    state, origin = checkpoints.restore(start, abstract) if start else init(), ""
    if config.start.workdir and not start:
      state, origin = start_from(state, config, mesh)
    if start >= parts.total_steps and not hlo:
      _say(f"{workdir} is finished at step {start} of {parts.total_steps}")
      return state
    began = time.monotonic()
    with waiting("compiling the training step", say=_say):
      step = compile_train_step(parts, _with_key_of(state, abstract), mesh)
    seconds = time.monotonic() - began
    _log_start(run, workdir, state, identity)
    with Console(workdir, start=start, total=parts.total_steps, tensorboard=config.tensorboard) as console:
      console.note(_headline(run, seconds, state))
      if origin:
        console.note(origin)
      if hlo and jax.process_index() == 0:
        console.note(dump(step, workdir / "hlo"))

      def save(state: TrainState, step: int) -> None:
        lock.check()
        checkpoints.save(state, identity, step=step)

      with Stop() as stop:  # until the last state is on disk
        state, stopped = _loop(run, console, step, state, trace, save, stop)
        checkpoints.wait()
      console.note(f"saved step {int(state.step)} in {workdir}")
  if stopped:
    raise Stopped(
      f"stopped by {stopped} at step {int(state.step)} of {parts.total_steps}; run the same command again to "
      "resume"
    )
  return state


def _say(text: str) -> None:
  if jax.process_index() == 0:
    notice(text)


def _identity(config: TrainConfig, source: Source) -> dict:
  """Returns what a checkpoint stores of its run, as JSON; a resumed run is compared with it."""
  data = {
    "num_examples": len(source),
    "num_classes": source.num_classes,
    "class_names": list(source.class_names),
  }
  return {"config": to_json(config), "data": data}


def _loop(
  run: Run,
  console: Console,
  step: Step,
  state: TrainState,
  trace: Profile,
  save: Callable[[TrainState, int], None],
  stop: Stop,
) -> tuple[TrainState, str]:
  """Takes the steps after `run.start`; the metrics of a step are read while the next one runs.

  Returns: (the last state, the signal that stopped the loop or "").
  """
  config, total = run.config, run.parts.total_steps
  batches = _batches(run)
  step_metrics = StepMetrics(
    step=run.start,
    batch_size=config.batch_size,
    steps_per_epoch=run.parts.steps_per_epoch,
    schedule=run.parts.optimizer.schedule,
  )
  unread, stopped = None, ""
  with batches, jax.transfer_guard("disallow"):
    ahead = parallel.prefetch(batches, run.mesh)
    for done in range(run.start + 1, total + 1):
      with step_metrics.waiting():
        batch = next(ahead)
      trace.before(done)
      state, metrics = step(state, batch)
      if unread is not None:
        step_metrics.add(done - 1, unread)
      unread = metrics
      stopped = stop.poll()
      last = done == total or bool(stopped)
      log = last or done % config.log_every == 0
      due = last or done % config.checkpoint.every_steps == 0
      if log or due:  # a state is saved only after its loss is known to be finite
        step_metrics.add(done, unread)
        unread = None
      if log:
        console.row(step_metrics.row(done, batches.input_rate()))
      if due:
        save(state, done)
      console.step(done)
      if traced := trace.after(done, state):
        console.note(traced)
      if last:
        break
  return state, stopped


def _batches(run: Run) -> pipeline.Batches | HeldBatches:
  config, steps = run.config, range(run.start, run.parts.total_steps)
  shared: dict[str, Any] = {
    "batch_size": config.batch_size,
    "seed": config.seed,
    "max_bad_fraction": config.data.max_bad_fraction,
  }
  if config.data.device_cache:
    return HeldBatches(run.source, run.mesh, steps=steps, **shared)
  return pipeline.train_batches(
    run.source,
    start=steps.start,
    stop=steps.stop,
    transform=run.transform,
    workers=config.data.workers,
    positions=parallel.local_rows(run.mesh, config.batch_size),
    **shared,
  )


def _resume_from(checkpoints: Checkpoints, identity: dict, workdir: pathlib.Path, force: bool) -> int:
  """Returns the step to resume from: that of the last intact checkpoint, or 0 if there is none.

  Options that the checkpoint's config lacks, because they were added later, are compared by their defaults.

  Raises: ValueError if config or data differ from those of the checkpoint, unless `force` is set, or if the
    checkpoint holds imported weights.
  """
  step, problems = checkpoints.latest()
  if problems:
    where = f"step {step}" if step else "the beginning"
    print("\n".join(problems) + f"\nresuming from {where}", flush=True)
  if not step:
    return 0
  stored = checkpoints.config(step)
  if "imported" in stored:
    raise ValueError(
      f"{workdir} holds imported weights, not a run that could be resumed; use another --workdir and start "
      f"from the weights with --config.start.workdir={workdir}"
    )
  with contextlib.suppress(ValueError):  # an option that no longer exists is named as a difference
    stored["config"] = completed(stored["config"])
  changed = [
    line
    for part in ("config", "data")
    for line in differences(*(_without_names(found[part]) for found in (stored, identity)), where=part)
    if not line.startswith(HARMLESS)
  ]
  names = (found["data"].get("class_names", ()) for found in (stored, identity))
  if renamed := classes.changed(*names):
    changed.append(renamed)
  if changed and not force:
    raise ValueError(
      f"{workdir} holds a run with a different config:\n  "
      + "\n  ".join(changed)
      + "\nUse the old values, another --workdir, or --force to resume with the new ones."
    )
  return step


def _without_names(stored: dict) -> dict:
  """Leaves out the class names, which `classes.changed` compares."""
  return {name: value for name, value in stored.items() if name != "class_names"}


def _with_key_of(state: TrainState, abstract: TrainState) -> TrainState:
  """Returns the abstract state with the key's implementation of `state`: that of the first start of a run."""
  key = jax.ShapeDtypeStruct(state.key.shape, state.key.dtype, sharding=abstract.key.sharding)
  return dataclasses.replace(abstract, key=key)


@contextlib.contextmanager
def _explain_full_disk(workdir: pathlib.Path) -> Iterator[None]:
  """Turns the different errors that libraries raise for a full disk into one OSError."""
  try:
    yield
  except (OSError, ValueError, RuntimeError) as error:
    if "No space left" not in str(error):
      raise
    raise OSError(
      f"no space left on the disk of {workdir}: the last step was not saved. The earlier checkpoints are "
      "intact; free some space, and run the same command again to resume from the last of them"
    ) from error


def _log_start(run: Run, workdir: pathlib.Path, state: TrainState, identity: dict) -> None:
  """Appends a line to the log of starts: the step, the config, the data and the hardware."""
  if jax.process_index() == 0:
    line = {
      "step": run.start,
      "total_steps": run.parts.total_steps,
      "began": time.time(),
      "parameters": _count(state),
    }
    append(workdir / STARTS, {**line, **identity, **provenance(run.mesh)})


def _count(state: TrainState) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def _headline(run: Run, compile_seconds: float, state: TrainState) -> str:
  config, total = run.config, run.parts.total_steps
  left_out = f"; not read of the data: {run.source.left_out}" if run.source.left_out else ""
  left_out += f"\nthe data: {run.source.note}" if run.source.note else ""
  return (
    f"{config.method['name']}, {config.encoder['name']} ({_count(state) / 1e6:.2f}M parameters), "
    f"{len(run.source)} images of {config.data.name}, batch {config.batch_size}, {run.mesh.size} x "
    f"{run.mesh.devices.flat[0].device_kind}; compiled in {compile_seconds:.1f} s{left_out}\n"
    + (f"resuming at step {run.start} of {total}" if run.start else f"{total} steps")
  )
