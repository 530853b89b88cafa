"""Commands that run a recipe: `train` and `evaluate`."""

from __future__ import annotations

import json

from ssl_jax.cli.flags import CONFIG, WORKDIR, Command, Flag


def train(values) -> None:
  """Train a network by the method of a recipe, or resume its training.

  Usage: ssl-jax train --config=RECIPE --workdir=DIR

  The same command again resumes the run from its last checkpoint. On Ctrl-C, on SIGTERM and when
  its terminal is closed the run saves a checkpoint before it stops; a second Ctrl-C ends it at once without
  saving. If the reader of its output goes (`ssl-jax train | head`), it continues without printing.

  Example:
    ssl-jax train --config=configs/pretrain/moco_sample.py --workdir=runs/sample
  """
  from ssl_jax import parallel
  from ssl_jax.config import schema
  from ssl_jax.run.train import train as run

  config = schema.check(schema.TrainConfig, values.config)
  if values.print_config:
    print(json.dumps(schema.to_json(config), indent=1))
    return
  parallel.start()
  run(config, values.workdir, force=values.force, profile=values.profile, hlo=values.hlo)


def evaluate(values) -> None:
  """Evaluate the network of a run.

  Usage: ssl-jax evaluate --config=RECIPE --workdir=DIR

  The command restores the network from a checkpoint and runs the tasks of the recipe. It prints the results
  and saves them, with the protocol of each task, in WORKDIR/evaluations.

  Example:
    ssl-jax evaluate --config=configs/transfer/knn.py --workdir=runs/sample
  """
  from ssl_jax import parallel
  from ssl_jax.config import schema
  from ssl_jax.run.evaluate import evaluate as run

  config = schema.check(schema.EvaluateConfig, values.config)
  if values.print_config:
    print(json.dumps(schema.to_json(config), indent=1))
    return
  parallel.start()
  run(config, values.workdir, step=values.step)


COMMANDS = {
  "train": Command(
    train,
    (
      CONFIG,
      WORKDIR,
      Flag("force", False, "resume the run even if its config differs from this one"),
      Flag("print_config", False, "print the config with all defaults and overrides as JSON, and exit"),
      Flag("profile", "", "the steps whose trace is written to WORKDIR/profile, such as 20-25"),
      Flag("hlo", False, "write the compiled train step, its memory and its cost to WORKDIR/hlo"),
    ),
  ),
  "evaluate": Command(
    evaluate,
    (
      CONFIG,
      WORKDIR,
      Flag("step", 0, "the step of the checkpoint to evaluate; 0, the default, is the last checkpoint"),
      Flag("print_config", False, "print the config with all defaults and overrides as JSON, and exit"),
    ),
  ),
}
