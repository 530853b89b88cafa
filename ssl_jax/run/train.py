"""The training loop. There is only this one; it contains nothing that is specific to a method."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssl_jax import parallel
from ssl_jax.config.schema import TrainConfig, check, to_json
from ssl_jax.core import DataSpec, Step, TrainState
from ssl_jax.data import pipeline, python_data
from ssl_jax.data.elements import Transform
from ssl_jax.data.reader import Source
from ssl_jax.log.boards import Board, Row, open_boards
from ssl_jax.log.console import Console
from ssl_jax.log.output import continue_if_closed
from ssl_jax.log.run_log import STARTS, append
from ssl_jax.log.step_metrics import StepMetrics
from ssl_jax.log.waiting import notice, waiting
from ssl_jax.run.assembly import Assembly, abstract_state, assemble, compile_train_step, open_data
from ssl_jax.run.checkpoint import Checkpoints
from ssl_jax.run.held_batches import HeldBatches
from ssl_jax.run.identity import identify, resume_from
from ssl_jax.run.lock import Lock
from ssl_jax.run.online import Online
from ssl_jax.run.profiling import Profile, dump
from ssl_jax.run.provenance import provenance
from ssl_jax.run.stop import Stop, Stopped
from ssl_jax.run.warm_start import start_from


class Run(NamedTuple):
  """What the training loop works on."""

  config: TrainConfig
  parts: Assembly
  source: Source
  transform: Transform
  mesh: Mesh
  start: int  # number of steps that are already done
  workdir: pathlib.Path
  identity: dict  # what a checkpoint stores of the run


def train(
  config: TrainConfig | ConfigDict,
  workdir: str | pathlib.Path,
  *,
  source: Any = None,
  callbacks: Sequence[Callable[[Row], Any]] = (),
  force: bool = False,
  profile: str = "",
  hlo: bool = False,
) -> TrainState:
  """Runs or resumes `config` in `workdir` until its last step; returns the last state.

  Args:
    workdir: holds `checkpoints/`, `metrics.jsonl` and `starts.jsonl`. Another call resumes from the last
      checkpoint, with bit-identical results.
    source: the data in the place of `config.data.name`: any object with `len(source)` and `source[i]`, or a
      mapping of split names to such objects; see `data/python_data.py`.
    callbacks: called with each row of metrics, {"step": ..., "loss": ..., ...}, and of `config.online`.
    force: resume even if the config differs from the checkpoint's.
    profile: steps to trace into `workdir/profile`, such as "20-25".
    hlo: write the compiled step to `workdir/hlo`.
  Raises: ValueError for a wrong config or wrong data, or if another training runs in `workdir`, before
    anything is compiled; LockLost if another one has taken `workdir` over; NonFiniteLoss, before a state with
    such a loss is saved; Stopped on SIGTERM, SIGHUP or Ctrl-C, after the state is saved.
  """
  config, workdir, mesh = check(TrainConfig, config), pathlib.Path(workdir).expanduser(), parallel.make_mesh()
  if source is not None:
    config = dataclasses.replace(config, data=python_data.as_given(config.data))
  parallel.check_batch(config.batch_size, mesh, config.accumulate)
  with waiting(f"reading the data set {config.data.name}", say=_say):
    opened, transform = open_data(config, source)
  parts = assemble(config, DataSpec(len(opened), opened.num_classes, config.batch_size))
  abstract, init = abstract_state(parts, config, mesh)
  identity = identify(config, opened)
  workdir.mkdir(parents=True, exist_ok=True)
  with (
    continue_if_closed(),
    _explain_full_disk(workdir),
    Lock(workdir) as lock,
    Checkpoints(workdir, keep=config.checkpoint.keep, keep_every=config.checkpoint.keep_every) as checkpoints,
  ):
    start = resume_from(checkpoints, identity, workdir, force)
    run = Run(config, parts, opened, transform, mesh, start, workdir, identity)
    trace = Profile(workdir / "profile", profile, start=start)
    state, origin = checkpoints.restore(start, abstract) if start else init(), ""
    if config.start.workdir and not start:
      state, origin = start_from(state, config, mesh)
    if start >= parts.total_steps and not hlo:
      _say(f"{workdir} is finished at step {start} of {parts.total_steps}")
      return state
    online = _make_online(run, source)
    began = time.monotonic()
    with waiting("compiling the training step", say=_say):
      step = compile_train_step(parts, _with_key_of(state, abstract), mesh)
    seconds = time.monotonic() - began
    _log_start(run, state)
    boards = _open_boards(run, callbacks)
    with online, Console(workdir, start=start, total=parts.total_steps, boards=boards) as console:
      dumped = dump(step, workdir / "hlo") if hlo and jax.process_index() == 0 else ""
      console.note("\n".join(filter(None, (_headline(run, seconds, state), origin, dumped))))

      def save(state: TrainState, step: int) -> None:
        lock.check()
        checkpoints.save(state, identity, step=step)

      with Stop() as stop:  # until the last state is on disk
        state, stopped = _loop(run, console, step, state, trace, save, stop, online)
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


def _loop(
  run: Run,
  console: Console,
  step: Step,
  state: TrainState,
  trace: Profile,
  save: Callable[[TrainState, int], None],
  stop: Stop,
  online: Online,
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
      scored = online.due(done, last=done == total)
      if log or due or scored:  # a state is saved only after its loss is known to be finite
        step_metrics.add(done, unread)
        unread = None
      if log:
        console.row(step_metrics.row(done, batches.input_rate()))
      if scored:
        with step_metrics.paused():
          console.score(*online.measure(state, done))
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


def _make_online(run: Run, given: Any) -> Online:
  config, mesh, per_epoch = run.config, run.mesh, run.parts.steps_per_epoch
  place: dict[str, Any] = dict(workdir=run.workdir, identity=run.identity, start=run.start)
  return Online(config, run.parts.method, mesh=mesh, steps_per_epoch=per_epoch, given=given, **place)


def _open_boards(run: Run, callbacks: Sequence[Callable[[Row], Any]]) -> tuple[Board, ...]:
  """Opens the destinations of the rows of metrics, of which only process 0 has some."""
  if jax.process_index():
    return ()
  board, project, config = run.config.tensorboard, run.config.wandb, to_json(run.config)
  return open_boards(run.workdir, tensorboard=board, wandb=project, config=config, callbacks=callbacks)


def _log_start(run: Run, state: TrainState) -> None:
  """Appends a line to the log of starts: the step, the config, the data and the hardware."""
  if jax.process_index() == 0:
    line = {
      "step": run.start,
      "total_steps": run.parts.total_steps,
      "began": time.time(),
      "parameters": _count(state),
    }
    append(run.workdir / STARTS, {**line, **run.identity, **provenance(run.mesh)})


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
