"""Computes what a recipe needs to know about its data before a run: a JSON file, or a mined data set."""

from __future__ import annotations

import ast
import dataclasses
import json
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.config.checked import nearest
from ssl_jax.config.schema import TrainConfig
from ssl_jax.data import host, pipeline, transforms
from ssl_jax.log.console import Progress
from ssl_jax.methods.pretext import cielab, colour_bins
from ssl_jax.mining import miners, runner
from ssl_jax.run.assembly import open_data

BATCH = 64


def prepare(words: Sequence[str], config: TrainConfig | None, output: str) -> pathlib.Path:
  """Runs the preparation named by the only word in `words` on the data of `config`.

  Returns: the path of the JSON file that was written.
  Raises: ValueError for an unknown word, a missing config, or an output that is not a .json file.
  """
  if len(words) != 1 or words[0] not in PREPARATIONS:
    known = (*PREPARATIONS, *miners.known())
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


def _option(word: str) -> tuple[str, object]:
  """Parses OPTION=VALUE; a value that is no Python literal is text."""
  name, equals, text = word.partition("=")
  if not equals:
    raise ValueError(f"{word!r} is not an option of a miner; write OPTION=VALUE")
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
