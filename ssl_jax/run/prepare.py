"""Computes what a recipe needs to know about its data before a run: a JSON file, or a mined data set."""

from __future__ import annotations

import ast
import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import parallel
from ssl_jax.abilities import Actor
from ssl_jax.augment.crops import to_float
from ssl_jax.config.checked import call_checked, nearest
from ssl_jax.config.schema import TrainConfig
from ssl_jax.control import trajectories
from ssl_jax.control.environment import Setup
from ssl_jax.data import host, pipeline, transforms
from ssl_jax.log.console import Progress
from ssl_jax.methods.pretext import cielab, colour_bins
from ssl_jax.mining import miners, runner
from ssl_jax.run.assembly import open_data
from ssl_jax.run.restore import restore
from ssl_jax.tasks.backbone import Backbone

BATCH = 64


def prepare(words: Sequence[str], config: TrainConfig | None, output: str) -> pathlib.Path:
  """Runs the preparation named by the only word in `words` on the data of `config`.

  Returns: the path of the JSON file that was written.
  Raises: ValueError for an unknown word, a missing config, or an output that is not a .json file.
  """
  if len(words) != 1 or words[0] not in PREPARATIONS:
    known = (*PREPARATIONS, trajectories.NAME, *miners.known())
    raise ValueError(f"`ssl-jax prepare` takes one word{nearest(' '.join(words), known)}")
  if config is None:
    raise ValueError(f"`ssl-jax prepare {words[0]}` needs --config, the recipe whose data it reads")
  path = pathlib.Path(output)
  if path.suffix != ".json":
    raise ValueError(f"--output={output} is not a .json file; give it that suffix")
  made = PREPARATIONS[words[0]](config)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(made) + "\n")
  print(f"wrote {path}")
  return path


def mine(
  words: Sequence[str],
  output: str,
  *,
  data_dir: str,
  split: str = "train[:80%]",
  test_split: str = "train[80%:]",
  seed: int = 0,
  processes: int = 0,
) -> pathlib.Path:
  """Runs the miner named by the first of `words`; the others are its options, OPTION=VALUE.

  Args: see `runner.Mining` and `runner.run`.
  Returns: the folder of the data set that was written.
  Raises: ValueError as `runner.run`, or for a word that is no option, or a negative number.
  """
  name, *options = words
  if not data_dir:
    raise ValueError(f"`ssl-jax prepare {name}` needs --data_dir, the folder of the clips")
  for flag, value in (("seed", seed), ("processes", processes)):
    if value < 0:
      raise ValueError(f"--{flag}={value} is negative; use 0 or more")
  mining = runner.Mining(name, dict(map(_option, options)), data_dir, split, test_split, seed)
  with Progress(name) as progress:
    return runner.run(mining, output, processes=processes, progress=progress)


def record(words: Sequence[str], output: str, *, seed: int = 0, processes: int = 0) -> pathlib.Path:
  """Records trajectories; `words` are the options of `record_trajectories`, OPTION=VALUE.

  Returns: the folder of the data set that was written.
  Raises: as `record_trajectories`, and ValueError for a word that is no option.
  """
  options = {**dict(map(_option, words)), "output": output, "seed": seed, "processes": processes}
  return call_checked(record_trajectories, options, trajectories.NAME)


def record_trajectories(
  *,
  output: str,
  environment: str = "cartpole/swingup",
  episodes: int = 60,
  test_episodes: int = 8,
  size: int = 100,
  frames: int = 3,
  repeat: int = 0,
  expert: str = "",
  noise: float = 0.0,
  policy: str = "",
  earlier: str = "",
  together: int = 8,
  camera: int = 0,
  seed: int = 0,
  processes: int = 0,
) -> pathlib.Path:
  """Writes transitions of an environment to OUTPUT/trajectories, see `trajectories.record`.

  Args:
    environment: DOMAIN/TASK of DeepMind Control, or MODULE:FUNCTION that returns an environment like those of
      dm_control, whose episodes have up to 1,000 control steps.
    episodes, test_episodes: of the splits "train" and "test".
    size: side of the frames in pixels: 100 as published, from which crops of 84 are cut.
    frames: of an observation.
    repeat: control steps for which an action is held; 0: as published for the environment, otherwise 4.
    expert: MODULE:FUNCTION, which takes (environment, repeat) and returns a function of the environment's
      physics to an action; "": the one that comes with the environment.
    noise: standard deviation of what is added to the actions, so that the expert is seen to correct.
    policy: the folder of a run of method 'policy', which acts in the place of the expert: a round of DAgger.
    earlier: a folder with recorded trajectories, whose transitions are copied.
    together: episodes side by side.
    camera: which camera of the environment.
    processes: that simulate and render; 0: this one does.
  Raises: ValueError for values out of range, an environment without an expert, or a run that does not fit.
  """
  setup = Setup(environment, size, repeat, expert, "", camera)
  recording = trajectories.Recording(setup, episodes, test_episodes, frames, noise, together, seed).check()
  if processes < 0:
    raise ValueError(f"--processes={processes} is negative; use 0 or more")
  about: dict[str, Any] = {"policy": policy}
  act = None
  if policy:
    run = restore(policy, parallel.make_mesh(jax.devices()[:1]))
    act, about["policy_step"] = acting(run.backbone, setup, frames), run.step
  with Progress(trajectories.NAME) as progress:
    return trajectories.record(
      recording,
      pathlib.Path(output).expanduser(),
      policy=act,
      earlier=earlier,
      processes=processes,
      about=about,
      progress=progress,
    )


def acting(backbone: Backbone, setup: Setup, frames: int) -> trajectories.Policy:
  """Returns clips uint8[n, frames + 1, S, S, 3] -> the actions of a trained policy.

  Raises: methods.MissingAbility if the network is no policy; ValueError if it sees other frames.
  """
  actor = backbone.ability(Actor, "`ssl-jax prepare trajectories`", "train a 'policy'")
  if (actor.frames, actor.size) != (frames, setup.size):
    raise ValueError(
      f"the policy sees {actor.frames} frames of {actor.size} pixels, but frames={frames} and "
      f"size={setup.size}; use frames={actor.frames} size={actor.size}"
    )
  act = jax.jit(lambda params, state, clips: actor.act(params, state, to_float(clips)))
  return lambda clips: np.asarray(act(*backbone.weights, clips))


def _option(word: str) -> tuple[str, object]:
  """Parses OPTION=VALUE; a value that is no Python literal is text."""
  name, equals, text = word.partition("=")
  if not equals:
    raise ValueError(f"{word!r} is not an option; write OPTION=VALUE")
  try:
    return name, ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return name, text


def colour_prior(config: TrainConfig) -> dict:
  """Counts which fraction of the pixels of all training images is nearest to each of the 313 colours.

  Returns: {"colour_prior": the 313 fractions, and the data that they were counted on}.
  """
  size = config.data.size
  clips = config.host["name"] in ("frame", "frames")
  source, _ = open_data(dataclasses.replace(config, host={"name": "frame" if clips else "image"}))
  square = transforms.resize_center_crop(size, interpolation=config.data.interpolation)

  @jax.jit
  def count(images, mask):
    ab = cielab.rgb_to_lab(images.astype(jnp.float32) / 255)[..., 1:]
    ab = jnp.where(mask[:, None, None, None], ab, 1e6)  # far from every bin of the table
    return colour_bins.count_colours(ab)

  total = np.zeros(len(colour_bins.TABLE), np.int64)
  with pipeline.eval_batches(
    source,
    batch_size=min(BATCH, len(source)),
    transform=host.one_image(square, source),
    workers=config.data.workers,
    max_bad_fraction=config.data.max_bad_fraction,
  ) as batches:
    for batch in batches:
      total += np.asarray(count(batch["image"], batch["valid"]))
  print(
    f"{total.sum():,} pixels of {len(source):,} images of {config.data.name} {config.data.split}: "
    f"{(total > 0).sum()} of {len(total)} colours occur, {total.max() / total.sum():.1%} of pixels have the "
    f"most frequent, (a, b) = {tuple(colour_bins.TABLE[total.argmax()].tolist())}"
  )
  return {
    "colour_prior": (total / total.sum()).tolist(),
    "data": config.data.name,
    "split": config.data.split,
    "size": size,
    "images": len(source),
    "pixels": int(total.sum()),
  }


PREPARATIONS = {"colour_prior": colour_prior}
