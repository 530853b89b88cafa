"""Commands that apply a trained network to new images: `embed` and `predict`."""

from __future__ import annotations

from ssl_jax.cli.flags import CONFIG, WORKDIR, Command, Flag

_SHARED = (
  Flag("data_dir", "", "the folder of the images; if empty, the data of the run"),
  Flag("name", "", "another kind of data set, as in config.data.name; if empty, a folder of images"),
  Flag("split", "", "a split, or a part of it such as 'train[:50%]'; if empty, all images of the folder"),
  Flag("step", 0, "the step of the checkpoint to use; 0, the default, is the last checkpoint"),
  Flag("weights", "params", "params, or ema for their moving average"),
  Flag("size", 0, "side in pixels of the images for the network; 0, the default, is that of the training"),
  Flag("crop_ratio", "1", "the fraction of the shorter side that the centre crop keeps"),
  Flag("batch_size", 128, "number of images at once"),
  Flag("workers", 0, "number of processes that decode; 0, the default, is threads"),
)


def embed(values) -> None:
  """Write the features of the images of a folder or data set.

  Usage: ssl-jax embed --workdir=DIR --data_dir=PHOTOS --output=FILE.npz|FILE.csv|FILE.parquet

  The file gets a row for every image: its name, its class if it lies in a class folder, and the numbers that
  the network computes for it. FILE.npz.json beside it states the protocol. The same command again continues
  after Ctrl-C or a crash. --like=IMAGE also draws the most similar images, by the cosine of the features.

  Examples:
    ssl-jax embed --workdir=runs/sample --data_dir=PHOTOS --output=features.csv
    ssl-jax embed --workdir=runs/sample --data_dir=PHOTOS --output=features.npz --like=PHOTOS/a.jpg
    ssl-jax embed --workdir=runs/sample --split=test --layer=stage3 --grid=2 --output=test.parquet
  """
  from ssl_jax import parallel
  from ssl_jax.apply.embed import embed as run

  options = _options(values, "output", "layer", "grid", "like")
  parallel.start()
  run(values.workdir, values.data_dir, **options)


def predict(values) -> None:
  r"""Write what a network says of images or of the frames of a video, which need no labels.

  Usage: ssl-jax predict --workdir=DIR --data_dir=PHOTOS|--video=FILE --output=DIR [--adapt=HOW]

  OUTPUT/predictions.csv gets a row for every image: the most probable class, and the probability of every
  class; predictions.json the protocol and the milliseconds of an image. A segmenter also writes the class
  of every pixel (OUTPUT/maps), a detector boxes, and both draw pictures and a film.

  With --adapt the network keeps learning, without labels, on the very images that it predicts:
    standard  on each image, starting from the trained weights
    online    along the images, each starting from what those before it left
    window    along the images or frames, from the latest 16 of them
  The same command again continues after Ctrl-C or a crash. --config names a recipe of configs/ttt with
  the options of the learning.

  Examples:
    ssl-jax predict --workdir=runs/tuned --data_dir=PHOTOS --output=runs/predictions
    ssl-jax predict --workdir=runs/joint --video=walk.mp4 --adapt=window --output=runs/walk
    ssl-jax predict --workdir=runs/probe --data_dir=PHOTOS --adapt=standard \
      --config=configs/ttt/mae.py:cifar10 --output=runs/learned
  """
  from ssl_jax import parallel
  from ssl_jax.apply.predict import predict as run
  from ssl_jax.config import schema

  options = _options(values, "output", "video", "adapt", "seed")
  config = values.config and schema.check(schema.EvaluateConfig, values.config)
  parallel.start()
  run(values.workdir, values.data_dir, config=config, **options)


def _options(values, *names: str) -> dict:
  """The options of these names, and those that all commands of this module share."""
  try:
    ratio = float(values.crop_ratio)
  except ValueError as error:
    raise ValueError(f"--crop_ratio={values.crop_ratio} is not a number; use one such as 0.875") from error
  if values.weights not in ("params", "ema"):
    raise ValueError(f"--weights={values.weights} is unknown; use params or ema")
  names += ("name", "split", "step", "weights", "size", "batch_size", "workers")
  return {"crop_ratio": ratio, **{name: getattr(values, name) for name in names}}


COMMANDS = {
  "embed": Command(
    embed,
    (
      WORKDIR,
      Flag("output", None, "the .npz, .csv or .parquet file to write"),
      *_SHARED,
      Flag("layer", "", "a feature map of the network, such as stage3; if empty, the output of the encoder"),
      Flag("grid", 1, "average the feature map over GRID x GRID cells"),
      Flag("like", "", "an image; the most similar ones are drawn beside the output"),
    ),
  ),
  "predict": Command(
    predict,
    (
      WORKDIR,
      Flag("output", None, "the folder to write to"),
      Flag("video", "", "a video file, or a folder of numbered images, in the place of --data_dir"),
      Flag("adapt", "none", "learning while predicting: none, standard, online or window"),
      CONFIG._replace(help="a recipe of configs/ttt, for the options of the learning", required=False),
      *_SHARED,
      Flag("seed", 0, "of what is drawn to learn"),
    ),
  ),
}
