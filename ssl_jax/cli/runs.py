"""Commands that run a recipe: `train`, `evaluate` and `study`."""

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
  if values.dry_run:
    from ssl_jax.run.dry_run import check_train

    print(check_train(config, values.devices))
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
  if values.dry_run:
    from ssl_jax.run.dry_run import check_evaluate

    print(check_evaluate(config, values.devices))
    return
  parallel.start()
  run(config, values.workdir, step=values.step)


def study(values) -> None:
  """Train and evaluate the runs of a study, and compare them.

  Usage: ssl-jax study --study=FILE --output=DIR [--data_dir=DATA] [--seeds=N,...] [--dry_run] [--parallel=N]

  A study file names runs with their seeds, evaluations and comparisons. The command trains and evaluates
  what is missing in DIR/runs, and writes means with standard errors and paired differences with 95%
  intervals to DIR/study.json and DIR/study.png; `ssl-jax report --workdir=DIR` shows them. The same command
  again continues after Ctrl-C or a crash. Given on several machines that see DIR, it shares the work.

  Example:
    ssl-jax study --study=configs/studies/sample.py --output=runs/study
    ssl-jax study --study=configs/studies/moco_table.py --output=runs/table --data_dir=TFDS --seeds=0
  """
  from ssl_jax.studies import processes, runner

  processes.stay_off_accelerators()
  words = values.seeds.split(",") if values.seeds else []
  if not all(word.strip().isdecimal() for word in words):
    raise ValueError(f"--seeds={values.seeds} is not a list of numbers; use one such as 0,1,2")
  runner.study(
    values.study,
    values.output,
    data_dir=values.data_dir,
    seeds=[int(word) for word in words],
    dry_run=values.dry_run,
    parallel=values.parallel,
  )


DRY_RUN = (
  Flag(
    "dry_run", False, "check the config without data and devices, print what the command would do, and exit"
  ),
  Flag("devices", 0, "the number of devices for which --dry-run checks; 0: those of this machine"),
)
COMMANDS = {
  "train": Command(
    train,
    (
      CONFIG,
      WORKDIR,
      Flag("force", False, "resume the run even if its config differs from this one"),
      Flag("print_config", False, "print the config with all defaults and overrides as JSON, and exit"),
      *DRY_RUN,
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
      *DRY_RUN,
    ),
  ),
  "study": Command(
    study,
    (
      Flag(
        "study",
        None,
        "the study, FILE.py or FILE.py:VARIANT; `ssl-jax recipes` lists the installed ones under studies/",
      ),
      Flag("output", None, "the folder of the study, which holds its runs and results"),
      Flag("data_dir", "", "config.data.data_dir of the runs that do not name theirs"),
      Flag("seeds", "", "the seeds of each run, such as 0 or 0,1,2; without it, those of the study"),
      Flag("dry_run", False, "print the runs, what is done of each and an estimate of the time, and exit"),
      Flag("parallel", 0, "how many runs at once; 0: one on an accelerator, on CPU one for each core"),
    ),
  ),
}
