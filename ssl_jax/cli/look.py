"""Commands that draw, report and follow."""

from __future__ import annotations

import importlib.util

from ssl_jax.cli.flags import CONFIG, WORKDIR, Command, Flag


def show(values) -> None:
  """Draw what the network sees: ssl-jax show PICTURE --flags

  ssl-jax show augmentations --config=configs/pretrain/moco_sample.py --output=views.png
    one image under each operation of SimCLR's figure 4, and the recipe's own views
  ssl-jax show task --config=configs/pretrain/jigsaw_cifar10_cpu.py --config.data.data_dir=TFDS --output=task.png
    what a pretext task makes of an image: the turns, the patches, the tiles, and the answers
  ssl-jax show corruptions --config=configs/pretrain/moco_sample.py --index=3 --output=corruptions.png
    a test image under the fifteen corruptions of ImageNet-C (CIFAR-10-C below 64 pixels) at severities 1, 3 and 5
  ssl-jax show reconstructions --workdir=runs/mae --ratios=0.75,0.8,0.85,0.95
    images of the test split as a masked autoencoder sees and restores them, at several ratios
  ssl-jax show reconstructions --workdir=runs/mae --over-epochs
    the same images restored by each checkpoint that the run kept
  ssl-jax show colours --workdir=runs/colorization --data-dir=PHOTOS --split=train --size=64
    grey images, the colours that a colorization gives them, and the true ones
  ssl-jax show adaptation --workdir=runs/probe --config=configs/ttt/mae.py:cifar10 --corruption=fog --severity=5 --index=3
    a corrupted test image while the network learns on it: what it restores, its loss, the classes it believes in
  ssl-jax show errors --evaluations=joint=runs/joint/evaluations/STEP/robustness-joint.json,online=... --output=errors.png
    errors under corruption that several evaluations found, side by side
  """
  from ssl_jax.config import schema
  from ssl_jax.view.show import Wanted
  from ssl_jax.view.show import show as run

  try:
    ratios = tuple(float(ratio) for ratio in values.ratios.split(",") if ratio)
  except ValueError as error:
    raise ValueError(f"--ratios={values.ratios} are no numbers; use shares such as 0.75,0.9") from error
  kind = schema.EvaluateConfig if values.config and "tasks" in values.config else schema.TrainConfig
  run(
    values.rest,
    Wanted(
      config=values.config and schema.check(kind, values.config),
      workdir=values.workdir or "",
      ratios=ratios,
      **{
        name: getattr(values, name)
        for name in (
          "output",
          "index",
          "seed",
          "images",
          "split",
          "data_dir",
          "size",
          "over_epochs",
          "step",
          "corruption",
          "severity",
          "evaluations",
        )
      },
    ),
  )


def report(values) -> None:
  """Look at runs: ssl-jax report --workdir=DIR [DIR ...]

  Writes one HTML page that needs no network: what ran, curves, evaluations, neighbours, a map of the features, corruptions, pictures.
  Several runs stand side by side. What `ssl-jax evaluate` and `ssl-jax show` found before is on it.
  """
  if importlib.util.find_spec("bokeh") is None or importlib.util.find_spec("sklearn") is None:
    raise ValueError(
      "a report needs bokeh and scikit-learn, which are not installed; pip install 'ssl_jax[report]'"
    )
  from ssl_jax.view.report import report as run

  run([values.workdir, *values.rest], values.output, draw=values.draw)


def watch(values) -> None:
  """Follow a run from another terminal: ssl-jax watch --workdir=runs/sample

  Shows its progress, figures and evaluations until it is done; Ctrl-C leaves the run alone. A pipe gets one plain line a row.
  """
  from ssl_jax.log.follow import watch as run

  run(values.workdir, once=values.once)


COMMANDS = {
  "show": Command(
    show,
    (
      CONFIG._replace(required=False),
      WORKDIR._replace(required=False),
      Flag("output", "", "the picture to write, a .png; default WORKDIR/pictures/PICTURE.png"),
      Flag("index", 0, "the (first) image of the data set"),
      Flag("seed", 0, "of the random draws"),
      Flag("images", 6, "how many are drawn"),
      Flag("split", "test", "which images are corrupted, coloured or reconstructed"),
      Flag("data_dir", "", "a folder of other images to draw instead"),
      Flag("size", 0, "side at which the network sees them; 0: as in the run"),
      Flag("ratios", "", "fractions of patches removed, such as 0.75,0.9; default: the run's own"),
      Flag("over_epochs", False, "reconstruct with each kept checkpoint"),
      Flag("corruption", "gaussian_noise", "of the image that is adapted to"),
      Flag("severity", 5, "of that corruption"),
      Flag("evaluations", "", "results of the tasks robustness and ttt, NAME=FILE.json,NAME=FILE.json"),
      Flag("step", 0, "the checkpoint to reconstruct with; 0: the last"),
    ),
    takes_words=True,
  ),
  "report": Command(
    report,
    (
      WORKDIR,
      Flag("output", "", "the page to write, a .html; default WORKDIR/report.html"),
      Flag(
        "draw", True, "first draw what a MAE or a colorization makes of test images, from checkpoint and data"
      ),
    ),
    takes_words=True,
  ),
  "watch": Command(watch, (WORKDIR, Flag("once", False, "print the progress so far and leave"))),
}
