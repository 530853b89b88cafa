"""Commands for use before a run: `recipes`, `describe`, `plan` and `prepare`."""

from __future__ import annotations

import os

from ssl_jax.cli.flags import CONFIG, Command, Flag


def plan(values) -> None:
  r"""Estimate the memory and time of a run on accelerators that this machine does not have.

  Usage: ssl-jax plan --config=RECIPE --topology=CHIP:SHAPE [--evaluation=RECIPE]

  The command compiles the real train step for the given TPU slice or GPUs on this machine. It prints whether
  the step fits in memory, its FLOPs and memory traffic per image, lower bounds on the time of a step and of
  the whole schedule, and its collectives. If the step does not fit, it prints which options make it fit.

  With --evaluation it plans an evaluation of the network of --config instead: a forward pass over the images,
  or test-time training on each image.

  Examples:
    ssl-jax plan --config=configs/pretrain/mae.py:large --topology=v5e:8x8
    ssl-jax plan --config=configs/transfer/vit_probe.py:vit_large \
      --evaluation=configs/ttt/mae.py:imagenet --topology=v5e:2x2
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
  r"""Compute statistics of the training data, mine a data set from clips, or record one.

  Usage: ssl-jax prepare colour_prior --config=RECIPE --output=FILE.json
         ssl-jax prepare MINER [OPTION=VALUE...] --data_dir=CLIPS --output=DIR [--split=SPLIT
           --test_split=SPLIT --processes=N --seed=N]
         ssl-jax prepare trajectories [OPTION=VALUE...] --output=DIR [--processes=N --seed=N]

  colour_prior  the frequency of each of the 313 colours, for colorization; then train with
                --config=configs/pretrain/colorization.py:FILE.json

  A miner reads a folder of clips and writes a TFDS data set to DIR/MINER, with statistics.json and the
  picture sheet sheet.png beside it; then train with --config.data.name=MINER --config.data.data_dir=DIR.
  Whole clips are held back for the split "test". A stopped command continues where it was when it is given
  again.
    motion  frames with a mask of what moves, for watching_objects_move
    sounds  frames with a summary of the sound around them, for ambient_sound
    tracks  two patches of a clip that show the same thing, for tracking
    tuples  five frames of a clip, for shuffle_and_learn

  trajectories  transitions of an environment of DeepMind Control, with the actions of an expert, for policy;
                needs '.[control]'. Options: environment, episodes, test_episodes, size, frames, repeat,
                expert, noise, policy, earlier, together, camera; policy=RUN earlier=DIR is a round of DAgger

  Examples:
    ssl-jax prepare colour_prior --config=configs/pretrain/colorization.py \
      --config.data.data_dir=TFDS --output=prior.json
    ssl-jax prepare sounds clusters=30 --data_dir=CLIPS --output=DIR
    ssl-jax prepare trajectories environment=cartpole/swingup size=72 --output=DIR
  """
  from ssl_jax.mining import miners
  from ssl_jax.run import prepare as run

  if values.rest and values.rest[0] in miners.known():
    flags = {name: getattr(values, name) for name in ("data_dir", "split", "test_split", "seed", "processes")}
    run.mine(values.rest, values.output, **flags)
    return
  if values.rest[:1] == ["trajectories"]:
    run.record(values.rest[1:], values.output, seed=values.seed, processes=values.processes)
    return
  from ssl_jax.config import schema

  run.prepare(values.rest, values.config and schema.check(schema.TrainConfig, values.config), values.output)


def describe(values) -> None:
  r"""Print how many videos a folder holds, how long they are, and their rate and classes.

  Usage: ssl-jax describe videos --data_dir=DIR [--name=SOURCE --split=SPLIT]

  The columns: mean length of a video in seconds, number of frames and of those with labels, number of videos,
  frames a second, number of classes. The rate comes from the files of clips, and otherwise from what is
  published about the data set.

  Example:
    ssl-jax describe videos --data_dir=KITTI_STEP --name=kitti_step
  """
  from ssl_jax.run.describe import describe as run

  run(values.rest, values.data_dir, values.name, values.split)


def recipes(values) -> None:
  """List the recipes that are installed with ssl_jax.

  Usage: ssl-jax recipes

  The flag --config accepts each recipe by the name shown. A file of the same name in the current folder takes
  precedence over the installed recipe.
  """
  from ssl_jax.config.recipe_files import installed_recipes

  found = installed_recipes()
  width = max(map(len, found), default=0)
  for name, line in found.items():
    print(f"{name:{width}}  {line}")


COMMANDS = {
  "recipes": Command(recipes, ()),
  "describe": Command(
    describe,
    (
      Flag("data_dir", None, "the folder of the data set"),
      Flag(
        "name",
        "",
        "davis, kitti_step, cityscapes_vps, youtube_vos, coco_videos, video_masks or video_folder; empty: "
        "the first of them that the folder holds",
      ),
      Flag("split", "", "a split, or a part of it such as 'val[:50%]'; empty: all of them"),
    ),
    takes_words=True,
  ),
  "plan": Command(
    plan,
    (
      CONFIG,
      Flag(
        "topology",
        None,
        "the accelerators, CHIP:SHAPE: v5e:8x8 is a TPU slice, v5e:8x8x2slices two of them, h100:8 one "
        "machine with 8 GPUs, h100:4x8 four machines with 8 GPUs each",
      ),
      Flag(
        "evaluation",
        None,
        "the recipe of an evaluation, which is planned instead of the train step; "
        "--evaluation.SECTION.OPTION=VALUE overrides an option",
        False,
      ),
      Flag("output", "", "a .json file that the plan is also written to"),
      Flag("images", 0, "number of training images, if the name of the data set does not determine it"),
      Flag("classes", 0, "number of classes, if the name of the data set does not determine it"),
      Flag("advise", True, "if the step does not fit, search for options with which it fits"),
    ),
  ),
  "prepare": Command(
    prepare,
    (
      CONFIG._replace(required=False),
      Flag("output", None, "the .json file, or the folder of data sets, to write"),
      Flag("data_dir", "", "the folder of clips that a miner reads"),
      Flag("split", "train[:80%]", "the clips that a miner trains on"),
      Flag("test_split", "train[80%:]", "the clips that a miner holds back; empty: none"),
      Flag("seed", 0, "of the random draws of a miner, or of recorded episodes"),
      Flag("processes", 0, "of a miner, 0: one for each core; or with environments, 0: none beside this one"),
    ),
    takes_words=True,
  ),
}
