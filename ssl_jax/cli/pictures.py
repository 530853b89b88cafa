"""Commands that show results: `show`, `report` and `watch`."""

from __future__ import annotations

import importlib.util

from ssl_jax.cli.flags import CONFIG, WORKDIR, Command, Flag


def show(values) -> None:
  r"""Draw pictures of a network's inputs and predictions.

  Usage: ssl-jax show PICTURE [--FLAG=VALUE ...]

  PICTURE is one of the following:
    augmentations: an image after each operation of SimCLR's figure 4, and the views of the recipe
      ssl-jax show augmentations --config=configs/pretrain/moco_sample.py --output=views.png
    task: the inputs that a pretext task makes from an image (rotations, patches, tiles), and their labels
      ssl-jax show task --config=configs/pretrain/jigsaw_cifar10_cpu.py --config.data.data_dir=TFDS \
        --output=task.png
    corruptions: a test image under the fifteen corruptions of ImageNet-C (of CIFAR-10-C if it is smaller than
    64 pixels) at severities 1, 3 and 5
      ssl-jax show corruptions --config=configs/pretrain/moco_sample.py --index=3 --output=corruptions.png
    reconstructions: test images, masked and then reconstructed by a masked autoencoder, at several mask
    ratios or by each checkpoint that the run kept
      ssl-jax show reconstructions --workdir=runs/mae --ratios=0.75,0.8,0.85,0.95
      ssl-jax show reconstructions --workdir=runs/mae --over-epochs
    colours: grey images, the colours predicted by a colorization network, and the true colours
      ssl-jax show colours --workdir=runs/colorization --data-dir=PHOTOS --split=train --size=64
    adaptation: test-time training on one corrupted image: its reconstructions, loss and predicted classes
      ssl-jax show adaptation --workdir=runs/probe --config=configs/ttt/mae.py:cifar10 --corruption=fog \
        --severity=5 --index=3
    errors: the errors under corruption that several evaluations measured, side by side
      ssl-jax show errors --output=errors.png \
        --evaluations=joint=runs/joint/evaluations/STEP/robustness-joint.json,online=...
  """
  from ssl_jax.config import schema
  from ssl_jax.view.request import PictureRequest
  from ssl_jax.view.show import show as run

  try:
    ratios = tuple(float(ratio) for ratio in values.ratios.split(",") if ratio)
  except ValueError as error:
    raise ValueError(
      f"--ratios={values.ratios} is not a list of numbers; use fractions such as 0.75,0.9"
    ) from error
  kind = schema.EvaluateConfig if values.config and "tasks" in values.config else schema.TrainConfig
  run(
    values.rest,
    PictureRequest(
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
  """Write an HTML report about runs and studies.

  Usage: ssl-jax report --workdir=DIR [DIR ...]

  The report is one HTML file, which needs no network connection. It shows what ran, training curves,
  evaluations, nearest neighbours of images, a map of the features, corruptions and pictures, for several runs
  side by side. The evaluations and pictures are those that `ssl-jax evaluate` and `ssl-jax show` have saved.
  If DIR is the --output of `ssl-jax study`, it shows the table and the picture of the study.
  """
  if importlib.util.find_spec("bokeh") is None or importlib.util.find_spec("sklearn") is None:
    raise ValueError(
      "a report needs bokeh and scikit-learn, which are not both installed; pip install 'ssl_jax[report]'"
    )
  from ssl_jax.log.waiting import waiting
  from ssl_jax.view.report import report as run

  with waiting("writing the report"):
    run([values.workdir, *values.rest], values.output, draw=values.draw)


def watch(values) -> None:
  """Follow the progress of a run from another terminal.

  Usage: ssl-jax watch --workdir=DIR

  The command shows the progress, metrics and evaluations of the run until the run has finished. Ctrl-C ends
  the command and does not affect the run. If the output is not a terminal, each row of metrics is printed as
  one line of plain text.
  """
  from ssl_jax.log.follow import watch as run

  run(values.workdir, once=values.once)


COMMANDS = {
  "show": Command(
    show,
    (
      CONFIG._replace(required=False),
      WORKDIR._replace(required=False),
      Flag("output", "", "the .png file to write; if empty, WORKDIR/pictures/PICTURE.png"),
      Flag("index", 0, "the position in the data set of the image, or of the first image"),
      Flag("seed", 0, "the seed of the random numbers"),
      Flag("images", 6, "the number of images in the picture"),
      Flag("split", "test", "the split whose images are corrupted, coloured or reconstructed"),
      Flag("data_dir", "", "a folder of images to use instead of the data of the run"),
      Flag("size", 0, "side in pixels of the images for the network; 0, the default, is the size in the run"),
      Flag("ratios", "", "mask ratios for reconstructions, such as 0.75,0.9; if empty, that of the run"),
      Flag("over_epochs", False, "reconstruct the images with each checkpoint that the run kept"),
      Flag("corruption", "gaussian_noise", "the corruption of the image in the picture `adaptation`"),
      Flag("severity", 5, "the severity of that corruption, 1 to 5"),
      Flag(
        "evaluations",
        "",
        "for the picture `errors`: results of the tasks robustness and ttt, NAME=FILE.json,NAME=FILE.json",
      ),
      Flag("step", 0, "the step of the checkpoint to use; 0, the default, is the last checkpoint"),
    ),
    takes_words=True,
  ),
  "report": Command(
    report,
    (
      WORKDIR,
      Flag("output", "", "the .html file to write; if empty, report.html in the first folder"),
      Flag(
        "draw",
        True,
        "first draw reconstructions (MAE) or colours (colorization); this needs the checkpoint and the data",
      ),
    ),
    takes_words=True,
  ),
  "watch": Command(watch, (WORKDIR, Flag("once", False, "print the latest row of metrics and exit"))),
}
