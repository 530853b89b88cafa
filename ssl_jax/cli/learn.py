"""Commands that train and measure."""

from __future__ import annotations

import json

from ssl_jax.cli.flags import CONFIG, WORKDIR, Command, Flag


def train(values) -> None:
  """Learn a representation: ssl-jax train --config=configs/pretrain/moco_sample.py --workdir=runs/sample

  The same command again goes on where the run stopped. Ctrl-C saves first; a second Ctrl-C does not.
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
  """Measure a representation: ssl-jax evaluate --config=configs/transfer/knn.py --workdir=runs/sample

  Restores the network of a run and prints and saves the figures, with their protocol, under WORKDIR/evaluations.
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
      Flag("force", False, "resume although the config differs from the run's"),
      Flag("print_config", False, "print the completed config as JSON and leave"),
      Flag("profile", "", "steps to trace into WORKDIR/profile, such as 20-25"),
      Flag("hlo", False, "write the compiled step, its memory and its cost to WORKDIR/hlo"),
    ),
  ),
  "evaluate": Command(
    evaluate,
    (
      CONFIG,
      WORKDIR,
      Flag("step", 0, "the checkpoint to measure; 0: the last"),
      Flag("print_config", False, "print the completed config as JSON and leave"),
    ),
  ),
}
