"""Warm starts: puts the encoder, and perhaps other parts, of another run into the initial state of a run."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax.config.schema import TrainConfig, differences, to_json
from ssl_jax.core import PyTree, TrainState, Weights
from ssl_jax.models import frozen_parts, visibility
from ssl_jax.models.depths import RELATIVE
from ssl_jax.run.restore import restore

# Encoder options that may differ from those of the other run: they do not change what the weights mean.
FREE = (
  "antialias_positions",
  "batch_groups",
  "dilate",
  "drop_path",
  "dropout",
  "dtype",
  "image_size",
  "layers",
  "output_stride",
  "pool",
  "relative_positions",
  "remat",
)
# Parts of an encoder that exist only for some of its uses.
OWN = ("fc_norm", "norm", "positions", *RELATIVE)


def start_from(state: TrainState, config: TrainConfig, mesh) -> tuple[TrainState, str]:
  """Replaces parts of the initial state of a run, mostly the encoder, by those of the run in `config.start`.

  The encoder's moving average, if the method keeps one, starts from the same weights.

  Returns: (the new state, a line that says what was taken).
  Raises: ValueError if the encoders differ, naming the options, or if leaves do not fit.
  """
  source = restore(config.start.workdir, mesh, step=config.start.step, weights=config.start.weights)
  _same_encoder(source.config, config)
  parts, notes = config.start.parts, _Notes(set(), set())
  _check_parts(parts, state, source.backbone.weights, config.start.workdir)

  def graft(weights: Weights) -> Weights:
    kept = weights.model_state.get(frozen_parts.FROZEN)
    if kept and "encoder" not in weights.params:  # then only what the method does not train is taken
      return _graft_frozen(weights, source.backbone.weights, config.start.workdir)
    whole, old = frozen_parts.whole(*weights), frozen_parts.whole(*source.backbone.weights)
    grafted = Weights(*(_graft(new, found, parts, notes) for new, found in zip(whole, old)))
    return frozen_parts.take_out(grafted, _leaves(kept).__contains__) if kept else grafted

  placed = jax.tree.map(lambda leaf: leaf.sharding, state)
  params, model_state = graft(Weights(state.params, state.model_state))
  extra = state.extra
  if getattr(extra, "ema", None):
    extra = extra._replace(ema=graft(extra.ema))
  state = dataclasses.replace(state, params=params, model_state=model_state, extra=extra)
  # Copied, because the train step donates the buffers of its state.
  state = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=placed)(state)
  differ = [
    f"{what} {', '.join(sorted(names))}" for what, names in zip(("new:", "not used:"), notes) if names
  ]
  taken = f"starts from the {' and '.join(parts)} of {config.start.workdir} at step {source.step}"
  return state, "; ".join([taken, *differ])


def _check_parts(parts: tuple[str, ...], state: TrainState, old: Weights, workdir: str) -> None:
  """Raises ValueError for a part other than the encoder that one of the two runs does not have."""
  for part in set(parts) - {"encoder"}:
    for params, what in ((state.params, "the new run"), (old.params, workdir)):
      if part not in params:
        raise ValueError(
          f"config.start.parts names {part!r}, but {what} has only {', '.join(sorted(params))}"
        )


def _same_encoder(old: TrainConfig, new: TrainConfig) -> None:
  # As JSON, because a checkpoint holds lists in the place of tuples.
  before, after = ({k: v for k, v in to_json(c)["encoder"].items() if k not in FREE} for c in (old, new))
  if before.get("positions") == "sincos" and after.get("positions") == "sincos_trained":
    before["positions"] = "sincos_trained"  # these are initialised with the table of "sincos"
  changed = differences(before, after, "config.encoder")
  if changed:
    raise ValueError(
      f"config.start.workdir {new.start.workdir} holds a different encoder:\n  "
      + "\n  ".join(changed)
      + "\nUse the old values, or start from another run."
    )


class _Notes(NamedTuple):
  """What differs between two runs."""

  fresh: set  # names of parts that only the new one has
  left: set  # of those that only the old one has


def _graft(new: PyTree, old: PyTree, parts: tuple[str, ...], notes: _Notes) -> PyTree:
  """Returns `new` with the leaves of `old` in the given parts.

  Inside of a part, only those of OWN may be in one of the two alone. A kernel of the encoder for three
  channels becomes one for four, see `visibility.widen`.
  """
  notes.fresh.update(new.keys() - set(parts))
  notes.left.update(old.keys() - set(parts))
  return {**new, **{part: _graft_part(new, old, part, notes) for part in parts if part in new}}


def _graft_part(new: PyTree, old: PyTree, part: str, notes: _Notes) -> PyTree:
  into, out = (_leaves(tree.get(part, {})) for tree in (new, old))
  notes.fresh.update(path[0] for path in into.keys() - out.keys())
  notes.left.update(path[0] for path in out.keys() - into.keys())
  problems = [
    f"{'/'.join((part, *path))} is in only one of the two runs"
    for path in into.keys() ^ out.keys()
    if path[0] not in OWN
  ]
  for path in into.keys() & out.keys():
    before, after = out[path].shape, into[path].shape
    if part == "encoder" and visibility.widens(before, after) is not None:
      out[path] = visibility.widened(out[path], after)
    elif before != after:
      problems.append(f"{'/'.join((part, *path))} is {before}, expected {after}")
  if problems:
    raise ValueError(f"config.start.workdir does not fit in its {part}: " + "; ".join(sorted(problems)[:20]))
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: out.get(tuple(key.key for key in path), leaf), new[part]
  )


def _graft_frozen(new: Weights, old: Weights, workdir: str) -> Weights:
  """Replaces the parameters that a method does not train, and the state of an encoder among them."""
  state = {**new.model_state, "frozen": _same_parts(new.model_state["frozen"], old.params, workdir)}
  if "encoder" in new.model_state:  # BatchNorm statistics
    kept = {"encoder": new.model_state["encoder"]}
    state |= _same_parts(kept, old.model_state, workdir)
  return new._replace(model_state=state)


def _same_parts(new: PyTree, old: PyTree, workdir: str) -> PyTree:
  """Returns the parts of `old` that `new` has. Raises ValueError if a leaf is missing or of another shape."""
  wanted, found = _leaves(new), _leaves({name: part for name, part in old.items() if name in new})
  problems = [
    f"{'/'.join(path)} is {found[path].shape if path in found else 'missing'}, expected {leaf.shape}"
    for path, leaf in wanted.items()
    if path not in found or found[path].shape != leaf.shape
  ]
  if problems:
    raise ValueError(
      f"config.start.workdir {workdir} does not fit: "
      + "; ".join(sorted(problems)[:20])
      + "\nUse the encoder options of that run, and for method 'mae_probe' its decoder options too."
    )
  return jax.tree_util.tree_map_with_path(lambda path, leaf: found[tuple(key.key for key in path)], new)


def _leaves(tree: PyTree) -> dict[tuple[str, ...], Any]:
  return {tuple(key.key for key in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
