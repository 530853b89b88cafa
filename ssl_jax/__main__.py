"""The command line: `ssl-jax COMMAND --flags`, also `python -m ssl_jax`."""

from __future__ import annotations

import importlib.util
import logging
import os
import pathlib
import sys
import types
from typing import NamedTuple

import absl.logging
from absl import flags
from ml_collections import config_flags

from ssl_jax.config import nearest


class Flag(NamedTuple):
  """One flag of a command; "config" is an ml_collections config file whose fields can be overridden."""

  name: str
  default: object  # None: none
  help: str
  required: bool = True  # if it has no default


CONFIG = Flag("config", None, "a recipe, FILE.py or FILE.py:VARIANT; --config.section.option=value changes an option")
TAKE_WORDS = ("prepare", "report", "show")  # commands that take more than flags
RECIPES = ("config", "evaluation")  # flags that name a recipe
WORKDIR = Flag("workdir", None, "the folder of the run: checkpoints, metrics, evaluations")


def train(values) -> None:
  """Learn a representation: ssl-jax train --config=configs/pretrain/moco_sample.py --workdir=runs/sample

  The same command again goes on where the run stopped. Ctrl-C saves first; a second Ctrl-C does not.
  """
  from ssl_jax import config, parallel
  from ssl_jax.train import train as run

  parallel.start()
  run(config.check(config.TrainConfig, values.config), values.workdir, force=values.force, profile=values.profile, hlo=values.hlo)


def evaluate(values) -> None:
  """Measure a representation: ssl-jax evaluate --config=configs/transfer/knn.py --workdir=runs/sample

  Restores the network of a run and prints and saves the figures, with their protocol, under WORKDIR/evaluations.
  """
  from ssl_jax import config, parallel
  from ssl_jax.evaluate import evaluate as run

  parallel.start()
  run(config.check(config.EvaluateConfig, values.config), values.workdir, step=values.step)


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
  from ssl_jax import config
  from ssl_jax.show import Wanted, show as run

  try:
    ratios = tuple(float(ratio) for ratio in values.ratios.split(",") if ratio)
  except ValueError as error:
    raise ValueError(f"--ratios={values.ratios} are no numbers; use shares such as 0.75,0.9") from error
  kind = config.EvaluateConfig if values.config and "tasks" in values.config else config.TrainConfig
  run(values.rest, Wanted(
      config=values.config and config.check(kind, values.config), workdir=values.workdir or "",
      ratios=ratios, **{name: getattr(values, name) for name in ("output", "index", "seed", "images", "split", "data_dir",
                                                                 "size", "over_epochs", "step", "corruption", "severity", "evaluations")}))


def plan(values) -> None:
  """Know what a run needs before owning the chips: ssl-jax plan --config=configs/pretrain/mae.py:large --topology=v5e:8x8

  Compiles the real train step for that TPU slice, or for GPUs (h100:8, h100:4x8), on this machine and prints whether it fits, its
  FLOPs and memory traffic an image, the least time of a step and of the whole schedule, the collectives, and, where it does not fit,
  what would make it fit.
  ssl-jax plan --config=configs/transfer/vit_probe.py:vit_large --evaluation=configs/ttt/mae.py:imagenet --topology=v5e:2x2
    the same of what an evaluation does with the network of that recipe: a pass over images, or learning on each of them
  """
  from ssl_jax import config

  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  from ssl_jax.plan import plan as run, write

  evaluation = values.evaluation and config.check(config.EvaluateConfig, values.evaluation)
  write(run(config.check(config.TrainConfig, values.config), values.topology, evaluation=evaluation or None, images=values.images,
            classes=values.classes, advise=values.advise), values.output)


def prepare(values) -> None:
  """Derive from the data what a recipe needs: ssl-jax prepare WHAT --config=RECIPE --output=FILE.json

  ssl-jax prepare colour_prior --config=configs/pretrain/colorization.py --config.data.data_dir=TFDS --output=prior.json
    how frequent each of 313 colours is; then train with --config=configs/pretrain/colorization.py:prior.json
  """
  from ssl_jax import config
  from ssl_jax.prepare import prepare as run

  run(values.rest, values.config and config.check(config.TrainConfig, values.config), values.output)


def report(values) -> None:
  """Look at runs: ssl-jax report --workdir=DIR [DIR ...]

  Writes one HTML page that needs no network: what ran, curves, evaluations, neighbours, a map of the features, corruptions, pictures.
  Several runs stand side by side. What `ssl-jax evaluate` and `ssl-jax show` found before is on it.
  """
  if importlib.util.find_spec("bokeh") is None or importlib.util.find_spec("sklearn") is None:
    raise ValueError("a report needs bokeh and scikit-learn, which are not installed; pip install 'ssl_jax[report]'")
  from ssl_jax.report import report as run

  run([values.workdir, *values.rest], values.output, draw=values.draw)


def import_(values) -> None:
  """Use weights that others trained: ssl-jax import --kind=KIND --input=FILE --output=DIR

  Makes DIR a run that `evaluate`, `show`, `export` and --config.start.workdir take like a trained one. Kinds: moco_v1, moco_v2, mae (the
  encoder), mae_full (with the decoder), timm_vit, torchvision_resnet, npz (what `ssl-jax export` wrote).
  """
  from ssl_jax.convert import Options, import_weights as run

  run(values.kind, values.input, values.output, Options(values.normalize, values.heads, values.classes))


def export(values) -> None:
  """Give a network to others: ssl-jax export --workdir=DIR --output=FILE

  FILE.npz or FILE.safetensors: all tensors, named and laid out as in PyTorch's libraries. FILE.stablehlo: the encoder as a program that
  runs with jax alone, on images f32[b, size, size, 3] in [0, 1].
  """
  from ssl_jax.convert import export_weights as run

  run(values.workdir, values.output, step=values.step, which=values.weights, size=values.size)


def watch(values) -> None:
  """Follow a run from another terminal: ssl-jax watch --workdir=runs/sample

  Shows its progress, figures and evaluations until it is done; Ctrl-C leaves the run alone. A pipe gets one plain line a row.
  """
  from ssl_jax.watch import watch as run

  run(values.workdir, once=values.once)


COMMANDS = {
    "train": (train, (CONFIG, WORKDIR, Flag("force", False, "resume although the config differs from the run's"),
                      Flag("profile", "", "steps to trace into WORKDIR/profile, such as 20-25"),
                      Flag("hlo", False, "write the compiled step, its memory and its cost to WORKDIR/hlo"))),
    "evaluate": (evaluate, (CONFIG, WORKDIR, Flag("step", 0, "the checkpoint to measure; 0: the last"))),
    "plan": (plan, (CONFIG, Flag("topology", None, "CHIP:SHAPE, such as v5e:8x8; GPUs h100:8, or machines x GPUs h100:4x8"),
                    Flag("evaluation", None, "a recipe of an evaluation: plan that instead; overrides as of --config", False),
                    Flag("output", "", "a .json to write as well"),
                    Flag("images", 0, "in the training data, if its name does not tell"), Flag("classes", 0, "likewise"),
                    Flag("advise", True, "where it does not fit, try what would"))),
    "prepare": (prepare, (CONFIG._replace(required=False), Flag("output", None, "the file to write, a .json"))),
    "report": (report, (WORKDIR, Flag("output", "", "the page to write, a .html; default WORKDIR/report.html"),
                       Flag("draw", True, "first draw what a MAE or a colorization makes of test images, from checkpoint and data"))),
    "import": (import_, (Flag("kind", None, "what kind of file it is"), Flag("input", None, "a .pth, .pt, .tar, .safetensors or .npz"),
                         Flag("output", None, "the new folder"), Flag("normalize", "", "how pixels are scaled first; needed for timm_vit"),
                         Flag("heads", 0, "of a transformer of unusual size"), Flag("classes", 0, "of the data, where there is no head to tell"))),
    "export": (export, (WORKDIR, Flag("output", None, "a .npz, .safetensors or .stablehlo"),
                        Flag("step", 0, "the checkpoint; 0: the last"), Flag("weights", "params", "params, or ema for the moving average"),
                        Flag("size", 0, "side of the program's images; 0: as in the run"))),
    "watch": (watch, (WORKDIR, Flag("once", False, "say how far it is and leave"))),
    "show": (show, (CONFIG._replace(required=False), WORKDIR._replace(required=False),
                    Flag("output", "", "the picture to write, a .png; default WORKDIR/pictures/PICTURE.png"),
                    Flag("index", 0, "the (first) image of the data set"), Flag("seed", 0, "of the random draws"),
                    Flag("images", 6, "how many are drawn"), Flag("split", "test", "which images are corrupted, coloured or reconstructed"),
                    Flag("data_dir", "", "a folder of other images to draw instead"),
                    Flag("size", 0, "side at which the network sees them; 0: as in the run"),
                    Flag("ratios", "", "shares of patches removed, 0.75,0.9; default the run's own"),
                    Flag("over_epochs", False, "reconstruct with each kept checkpoint"),
                    Flag("corruption", "gaussian_noise", "of the image that is adapted to"), Flag("severity", 5, "of that corruption"),
                    Flag("evaluations", "", "what robustness and ttt wrote, NAME=FILE.json,NAME=FILE.json"),
                    Flag("step", 0, "the checkpoint to reconstruct with; 0: the last"))),
}


def main() -> None:
  """Runs the command named first; the rest are its flags.

  Exit status: 0 done, 1 failed, 2 misused, 75 asked to stop and saved (the same command goes on), 130 interrupted.
  """
  words = sys.argv[1:]
  if not words or words[0] in ("-h", "--help", "help"):
    print(_overview())
    sys.exit(0 if words else 2)
  if words[0] not in COMMANDS:
    _stop(f"no command is called {words[0]!r}{nearest(words[0], COMMANDS)}", 2)
  function, specs = COMMANDS[words[0]]
  if {"-h", "--help"} & set(words[1:]):
    print(_help(words[0]))
    return
  values = _parse(words[0], specs, words[1:])
  _use_huge_pages()
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  flags.FLAGS(["ssl-jax"])  # libraries look into the global flags
  absl.logging.set_verbosity(absl.logging.FATAL)  # what Orbax says of every folder, and of errors that it raises as well
  logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # which repeats at the end what was raised long before
  from ssl_jax.stop import Stopped  # imports jax, not for --help

  try:
    function(values)
  except Stopped as stopped:
    _stop(str(stopped), 75)
  except (ValueError, OSError, RuntimeError) as error:
    if os.environ.get("SSL_JAX_TRACEBACK"):
      raise
    from ssl_jax import parallel

    _stop(f"{parallel.whoami()}{error}\n(SSL_JAX_TRACEBACK=1 shows where this was raised)", 1)
  except KeyboardInterrupt:
    _stop("interrupted", 130)


def _use_huge_pages() -> None:
  """Starts this process again with malloc asking for huge pages: on CPU, XLA's large buffers come and go each step, and
  faulting them in by 4 KiB costs a training step up to a third of its time. glibc reads the setting only at start."""
  setting = "glibc.malloc.hugetlb=1"
  before = os.environ.get("GLIBC_TUNABLES", "")
  if sys.platform == "linux" and "glibc.malloc.hugetlb" not in before:
    os.environ["GLIBC_TUNABLES"] = f"{before}:{setting}".lstrip(":")
    os.execv(sys.executable, [sys.executable, "-m", "ssl_jax", *sys.argv[1:]])


def _parse(command: str, specs: tuple[Flag, ...], words: list[str]):
  """The command's flag values; `rest` holds the words that are no flags. Exits 2 if they make no sense."""
  values = flags.FlagValues()
  words = [_underscored(word) for word in words]
  for spec in specs:
    if spec.name in RECIPES:
      config_flags.DEFINE_config_file(spec.name, spec.default, spec.help, flag_values=values,
                                      sys_argv=["ssl-jax", *words])
    else:
      define = {bool: flags.DEFINE_bool, int: flags.DEFINE_integer}.get(type(spec.default), flags.DEFINE_string)
      define(spec.name, spec.default, spec.help, flag_values=values)
  try:
    _check_overrides(words)
    rest = values([f"ssl-jax {command}", *words])[1:]
    missing = [spec.name for spec in specs if spec.default is None and spec.required
               and not values[spec.name].value]
    if missing:
      raise ValueError(f"--{missing[0]} is missing: {next(s.help for s in specs if s.name == missing[0])}")
    if rest and command not in TAKE_WORDS:
      raise ValueError(f"{rest[0]!r} is not a flag; flags start with --")
  except (flags.Error, ValueError, OSError) as error:
    reason = str(error).strip()
    if "Traceback" in reason:  # what a recipe raised, as ml_collections reports it
      reason = reason.splitlines()[-1].partition(": ")[2]
    _stop(f"{reason}\n`ssl-jax {command} --help` says what it takes.", 2)
  if "://" in (getattr(values, "workdir", None) or ""):
    _stop(f"--workdir={values.workdir} is no folder; mount the bucket and name the folder, as launch/tpu_pod.sh does by itself", 2)
  return types.SimpleNamespace(rest=rest, **{spec.name: values[spec.name].value for spec in specs})


def _underscored(word: str) -> str:
  """--over-epochs=x as --over_epochs=x."""
  name, *value = word.split("=", 1)
  return "=".join(["--" + name[2:].replace("-", "_"), *value]) if name.startswith("--") else word


def _check_overrides(words: list[str]) -> None:
  """Refuses `--config.x` that the config lacks, naming the nearest fields, before absl sees it."""
  for recipe in RECIPES:
    file = next((w.split("=", 1)[1] for w in words if w.startswith((f"--{recipe}=", f"-{recipe}="))), None)
    if file is None:
      continue
    if not pathlib.Path(file.split(":")[0]).is_file():
      raise ValueError(f"--{recipe}={file}: there is no file {file.split(':')[0]}")
    loader, alone = flags.FlagValues(), ["ssl-jax", f"--{recipe}={file}"]
    config_flags.DEFINE_config_file(recipe, flag_values=loader, sys_argv=alone)
    loader(alone)
    fields = _fields(loader[recipe].value.to_dict(), recipe)
    for word in words:
      name = word.lstrip("-").split("=")[0]
      if name.startswith(f"{recipe}.") and name not in fields:
        raise ValueError(f"--{name} is unknown{nearest(name, fields)}")


def _fields(config: dict, where: str) -> list[str]:
  inner = [_fields(v, f"{where}.{k}") if isinstance(v, dict) else [f"{where}.{k}"] for k, v in config.items()]
  return [name for names in inner for name in names]


def _overview() -> str:
  lines = [f"  {name:10} {function.__doc__.splitlines()[0]}" for name, (function, _) in COMMANDS.items()]
  return ("ssl-jax: self-supervised visual representation learning.\n\n" + "\n".join(lines)
          + "\n\n`ssl-jax COMMAND --help` tells more.")


def _help(command: str) -> str:
  function, specs = COMMANDS[command]
  lines = [f"  --{s.name.replace('_', '-'):12} {s.help}" + (f" (default {s.default})" if s.default not in (None, "") else "")
           for s in specs]
  return "\n".join(line.removeprefix("  ") for line in function.__doc__.splitlines()) + "\n" + "\n".join(lines)


def _stop(message: str, status: int) -> None:
  print(f"ssl-jax: {message}", file=sys.stderr)
  sys.exit(status)


if __name__ == "__main__":
  main()
