"""Commands that answer questions before a run."""

from __future__ import annotations

import os

from ssl_jax.cli.flags import CONFIG, Command, Flag


def plan(values) -> None:
  """Know what a run needs before owning the chips: ssl-jax plan --config=configs/pretrain/mae.py:large --topology=v5e:8x8

  Compiles the real train step for that TPU slice, or for GPUs (h100:8, h100:4x8), on this machine and prints whether it fits, its
  FLOPs and memory traffic an image, the least time of a step and of the whole schedule, the collectives, and, where it does not fit,
  what would make it fit.
  ssl-jax plan --config=configs/transfer/vit_probe.py:vit_large --evaluation=configs/ttt/mae.py:imagenet --topology=v5e:2x2
    the same of what an evaluation does with the network of that recipe: a pass over images, or learning on each of them
  """
  from ssl_jax.config import schema

  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  from ssl_jax.planning import plan as run
  from ssl_jax.planning import write

  evaluation = values.evaluation and schema.check(schema.EvaluateConfig, values.evaluation)
  write(
    run(
      schema.check(schema.TrainConfig, values.config),
      values.topology,
      evaluation=evaluation or None,
      images=values.images,
      classes=values.classes,
      advise=values.advise,
    ),
    values.output,
  )


def prepare(values) -> None:
  """Derive from the data what a recipe needs: ssl-jax prepare WHAT --config=RECIPE --output=FILE.json

  ssl-jax prepare colour_prior --config=configs/pretrain/colorization.py --config.data.data_dir=TFDS --output=prior.json
    how frequent each of 313 colours is; then train with --config=configs/pretrain/colorization.py:prior.json
  """
  from ssl_jax.config import schema
  from ssl_jax.run.prepare import prepare as run

  run(values.rest, values.config and schema.check(schema.TrainConfig, values.config), values.output)


def recipes(values) -> None:
  """List the recipes that come with ssl_jax: ssl-jax recipes

  Each can be given to --config by the name shown; a file of that name in the current folder wins.
  """
  from ssl_jax.config.recipe_files import installed_recipes

  for name, line in installed_recipes().items():
    print(f"{name:42} {line}")


COMMANDS = {
  "recipes": Command(recipes, ()),
  "plan": Command(
    plan,
    (
      CONFIG,
      Flag("topology", None, "CHIP:SHAPE, such as v5e:8x8; GPUs h100:8, or machines x GPUs h100:4x8"),
      Flag(
        "evaluation", None, "the recipe of an evaluation: plan that instead; overrides as of --config", False
      ),
      Flag("output", "", "a .json to write as well"),
      Flag("images", 0, "in the training data, if its size is not known from its name"),
      Flag("classes", 0, "in the training data, likewise"),
      Flag("advise", True, "if the step does not fit, try what would make it fit"),
    ),
  ),
  "prepare": Command(
    prepare,
    (CONFIG._replace(required=False), Flag("output", None, "the file to write, a .json")),
    takes_words=True,
  ),
}
