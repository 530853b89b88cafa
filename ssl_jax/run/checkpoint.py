"""Saves and restores runs. This is the only module that imports Orbax.

A checkpoint has three items: `model` (parameters, model state and EMA copy: all that evaluation needs),
`train` (optimiser state, the rest of `extra`, key and step), `config` (JSON, with the implementation of the
key). A checkpoint is written to a temporary folder and renamed when it is complete, so that a killed process
never leaves a partial checkpoint that could be restored. It contains the digests of its files, so that a
checkpoint that is damaged later is skipped, or refused if it is asked for by its step.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from ssl_jax.core import PyTree, TrainState, Weights
from ssl_jax.run import digests

KEY_KIND = "key_implementation"  # of the state's key, in the item `config`; its data are in `train`
OLD_KEY_KIND = "threefry2x32"  # of checkpoints that do not name it


T = TypeVar("T")


class Checkpoints:
  """The checkpoints of one run, in `workdir/checkpoints`."""

  def __init__(self, workdir: str | pathlib.Path, *, keep: int | None = None, keep_every: int = 0):
    """Opens the folder for reading or, if `keep` is given, for saving, and creates it if needed.

    Args:
      keep: how many of the latest checkpoints to keep; None: read only.
      keep_every: also keep each checkpoint whose step is a multiple of this; 0: none.
    Raises: ValueError if `keep` is given and one of the checkpoints is a link: Orbax would delete the files
      that it leads to.
    """
    self.folder = pathlib.Path(workdir).resolve() / "checkpoints"
    links = sorted(path for path in self.folder.glob("step_*") if path.is_symlink())
    if links and keep is not None:
      raise ValueError(
        f"{links[0]} is a link to {links[0].readlink()}, whose files would be deleted with the checkpoints "
        "that are not kept; remove the link, or replace it by a copy"
      )
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep,
      keep_period=keep_every or None,
      create=keep is not None,
      read_only=keep is None,
      step_prefix="step",
      async_options=ocp.AsyncOptions(post_finalization_callback=self._write_digests),
    )
    handlers = {
      "model": ocp.PyTreeCheckpointHandler(),
      "train": ocp.PyTreeCheckpointHandler(),
      "config": ocp.JsonCheckpointHandler(),
    }
    self._saves = keep is not None
    open_manager = lambda: ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)
    self._manager = _despite_deletions(open_manager)

  def steps(self) -> list[int]:
    """Lists the steps of all complete checkpoints that exist now, in ascending order."""
    _despite_deletions(self._manager.reload)
    return sorted(self._manager.all_steps())

  def latest(self) -> tuple[int, list[str]]:
    """Finds the last intact checkpoint: (its step, 0 if there is none; what is wrong with the later ones).

    If this object also saves, damaged checkpoints are moved to `workdir/damaged`, because their steps will be
    saved again. Only process 0 reads the files; the other processes get its step by a broadcast.
    """
    found, problems = self._last_intact() if jax.process_index() == 0 else (0, [])
    if jax.process_count() > 1:
      found = int(multihost_utils.broadcast_one_to_all(np.int32(found)))
    _despite_deletions(self._manager.reload)
    return found, problems

  def _last_intact(self) -> tuple[int, list[str]]:
    """Finds the last intact checkpoint; searches again if a run that is being trained saves another one.

    Then the run may be deleting, file by file, the checkpoint that seemed to be damaged.
    """
    while True:
      found, problems = 0, []
      steps = self.steps()
      for step in reversed(steps):
        problem = digests.find_damage(self._path(step))
        if not problem:
          found = step
          break
        problems.append(f"the checkpoint of step {step} is damaged: {problem}")
      if self._saves or not problems or self.steps()[-1:] == steps[-1:]:
        break
    for step in steps if self._saves else ():
      if step > found:
        aside = self.folder.parent / "damaged"
        aside.mkdir(exist_ok=True)
        self._path(step).rename(aside / f"{self._path(step).name}_{time.time_ns()}")
    return found, problems

  def find_damage(self, step: int) -> str:
    """Checks one checkpoint; returns what is wrong with it, or "". All processes must call it."""
    problem = digests.find_damage(self._path(step)) if jax.process_index() == 0 else ""
    if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.int32(bool(problem))):
      problem = problem or "process 0 tells how"
    return problem

  def is_intact(self, step: int) -> bool:
    """Whether a checkpoint has its digests, which go when it is deleted, and agrees with them."""
    path = self._path(step)
    return (path / digests.DIGESTS).exists() and not digests.find_damage(path)

  def save(self, state: TrainState, config: dict, *, step: int) -> None:
    """Starts writing `state`; returns when its buffers may be overwritten or donated."""
    model, train = _split(state)
    config = {**config, KEY_KIND: str(jax.random.key_impl(state.key))}
    self._manager.save(
      step,
      args=ocp.args.Composite(
        model=ocp.args.PyTreeSave(model), train=ocp.args.PyTreeSave(train), config=ocp.args.JsonSave(config)
      ),
    )

  def save_weights(self, weights: Weights, average: Weights | None, config: dict, *, step: int) -> None:
    """Starts writing a checkpoint without `train`: an imported network, from which no run can resume."""
    self._manager.save(
      step,
      args=ocp.args.Composite(
        model=ocp.args.PyTreeSave(_model(weights, average)), config=ocp.args.JsonSave(config)
      ),
    )

  def config(self, step: int) -> dict:
    """Reads the `config` item of a checkpoint: the run's config and data as JSON."""
    return self._manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))["config"]

  def restore(self, step: int, like: TrainState) -> TrainState:
    """Restores the whole state with the shapes, dtypes and shardings of the abstract state `like`.

    Its key has the implementation with which it was saved, whatever JAX's default is now.

    Raises: ValueError that lists the leaves that are missing, extra or of another shape.
    """
    kind = self.config(step).get(KEY_KIND, OLD_KEY_KIND)
    like = dataclasses.replace(like, key=_abstract_key(kind, like.key))
    model, train = _split(like)
    self._fits(step, "model", model)
    self._fits(step, "train", train)
    restored = self._manager.restore(step, args=ocp.args.Composite(model=_as(model), train=_as(train)))
    return _join(restored["model"], restored["train"], kind)

  def restore_weights(self, step: int, like: Weights, *, which: str = "params") -> Weights:
    """Restores only the network: the trained weights ("params") or their moving average ("ema").

    Args:
      like: abstract weights of the method's network, with shardings on any number of devices.
    Raises: ValueError that lists leaves that do not fit, or if the run keeps no moving average.
    """
    stored = self._stored(step, "model")
    target = {"params": like.params, "model_state": like.model_state}
    if which == "ema" and not stored.get("ema"):
      raise ValueError(
        f"the checkpoint at step {step} of {self.folder.parent} holds no moving average; "
        "use config.weights='params'"
      )
    target = {"ema": target} if which == "ema" else target
    self._fits(step, "model", target, partial=True)
    restored = self._manager.restore(step, args=ocp.args.Composite(model=_as(target, partial=True)))["model"]
    found = restored["ema"] if which == "ema" else restored
    return Weights(found["params"], found["model_state"])

  def wait(self) -> None:
    """Waits until the last checkpoint is on disk; raises the error if writing it failed."""
    self._manager.wait_until_finished()

  def __enter__(self) -> Checkpoints:
    return self

  def __exit__(self, *_) -> None:
    self._manager.close()

  def _path(self, step: int) -> pathlib.Path:
    return self.folder / f"step_{step}"

  def _write_digests(self) -> None:
    """Writes the digests of a checkpoint, in the background, just before it is renamed to its final name."""
    for path in self.folder.glob("step_*tmp*") if jax.process_index() == 0 else ():
      digests.write_digests(path)

  def _stored(self, step: int, item: str) -> PyTree:
    return self._manager.item_metadata(step)[item].tree

  def _fits(self, step: int, item: str, wanted: PyTree, partial: bool = False) -> None:
    have, want = _shapes(self._stored(step, item)), _shapes(wanted)
    extra = [] if partial else sorted(have.keys() - want.keys())
    problems = (
      [f"missing {n} {want[n]}" for n in sorted(want.keys() - have.keys())]
      + [f"extra {n} {have[n]}" for n in extra]
      + [
        f"{n} is {have[n]}, expected {want[n]}"
        for n in sorted(have.keys() & want.keys())
        if have[n] != want[n]
      ]
    )
    if problems:
      raise ValueError(
        f"the checkpoint at step {step} of {self.folder.parent} does not fit ({item}): "
        + "; ".join(problems[:20])
        + (f"; and {len(problems) - 20} more" if len(problems) > 20 else "")
      )


def _despite_deletions(list_checkpoints: Callable[[], T]) -> T:
  """Calls again if a checkpoint that Orbax lists is deleted before it looks at it, by a run in progress."""
  for _ in range(100):
    try:
      return list_checkpoints()
    except FileNotFoundError:
      time.sleep(0.01)
  return list_checkpoints()


def _as(like: PyTree, partial: bool = False) -> ocp.args.PyTreeRestore:
  """Arguments to restore the leaves of `like`; with `partial`, other leaves on disk are ignored."""
  return ocp.args.PyTreeRestore(
    like, restore_args=ocp.checkpoint_utils.construct_restore_args(like), partial_restore=partial
  )


def _shapes(tree: PyTree) -> dict[str, Any]:
  """Returns {"params/encoder/...": shape}, with equal paths for dicts, NamedTuples and Orbax's metadata."""
  paths = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))[0]
  return {
    "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path): tuple(
      leaf.shape
    )
    for path, leaf in paths
    if leaf is not None
  }


def _split(state: TrainState) -> tuple[dict, dict]:
  ema = getattr(state.extra, "ema", None)
  extra = state.extra if ema is None else state.extra._replace(ema=())
  model = _model(Weights(state.params, state.model_state), ema)
  raw = jax.random.key_data(state.key) if isinstance(state.key, jax.Array) else _abstract_data(state.key)
  return model, {"extra": extra, "opt_state": state.opt_state, "key": raw, "step": state.step}


def _abstract_key(kind: str, like) -> jax.ShapeDtypeStruct:
  """Returns an abstract key of an implementation, with the sharding of the abstract key `like`."""
  key = jax.eval_shape(lambda: jax.random.key(0, impl=kind))
  return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=like.sharding)


def _abstract_data(key) -> jax.ShapeDtypeStruct:
  data = jax.eval_shape(jax.random.key_data, key)
  return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=key.sharding)


def _model(weights: Weights, average: Weights | None) -> dict:
  return {
    "params": weights.params,
    "model_state": weights.model_state,
    "ema": {} if average is None else {"params": average.params, "model_state": average.model_state},
  }


def _join(model: dict, train: dict, kind: str) -> TrainState:
  extra = train["extra"]
  if model["ema"]:
    extra = extra._replace(ema=Weights(**model["ema"]))
  return TrainState(
    step=train["step"],
    params=model["params"],
    model_state=model["model_state"],
    extra=extra,
    opt_state=train["opt_state"],
    key=jax.random.wrap_key_data(train["key"], impl=kind),
  )
