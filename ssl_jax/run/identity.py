"""What a checkpoint stores of its run beside the state, and whether a run may be resumed from it."""

from __future__ import annotations

import contextlib
import pathlib

from ssl_jax.config.recipe_builder import completed
from ssl_jax.config.schema import TrainConfig, differences, to_json
from ssl_jax.data import classes
from ssl_jax.data.reader import Source
from ssl_jax.run.checkpoint import Checkpoints

# Options that may change between a run and its resumption: they do not affect what is computed.
HARMLESS = (
  "config.checkpoint.",
  "config.log_every",
  "config.online.",
  "config.tensorboard",
  "config.wandb",
  "config.sharding",
  "config.data.workers",
  "config.data.cache",
  "config.data.device_cache",
  "config.data.data_dir",
  "config.data.max_bad_fraction",
)
FINGERPRINT = "fingerprint"  # of the data, where it is known


def identify(config: TrainConfig, source: Source) -> dict:
  """Returns what a checkpoint stores of its run, as JSON; a resumed run is compared with it."""
  data = {
    "num_examples": len(source),
    "num_classes": source.num_classes,
    "class_names": list(source.class_names),
  }
  known = {FINGERPRINT: source.fingerprint} if source.fingerprint else {}
  return {"config": to_json(config), "data": data, **known}


def resume_from(checkpoints: Checkpoints, identity: dict, workdir: pathlib.Path, force: bool) -> int:
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
  changed = _changed(stored, identity)
  if changed and not force:
    raise ValueError(
      f"{workdir} holds a run with a different config:\n  "
      + "\n  ".join(changed)
      + "\nUse the old values, another --workdir, or --force to resume with the new ones."
    )
  return step


def _changed(stored: dict, identity: dict) -> list[str]:
  """A line for each difference in config or data that matters."""
  changed = [
    line
    for part in ("config", "data")
    for line in differences(*(_without_names(found[part]) for found in (stored, identity)), where=part)
    if not line.startswith(HARMLESS)
  ]
  names = (found["data"].get("class_names", ()) for found in (stored, identity))
  if renamed := classes.changed(*names):
    changed.append(renamed)
  if {FINGERPRINT} <= stored.keys() & identity.keys() and stored[FINGERPRINT] != identity[FINGERPRINT]:
    changed.append("data: some of the records have another content than those of the run")
  return changed


def _without_names(stored: dict) -> dict:
  """Leaves out the class names, which `classes.changed` compares."""
  return {name: value for name, value in stored.items() if name != "class_names"}
