"""Measures what a pre-trained encoder is worth for segmenting CamVid, over seeds.

    python tests/benchmarks/segmentation_camvid.py --data SHARED_DATA --work FOLDER [--seeds 3] [--epochs 32]

1. MoCo v2 (configs/pretrain/moco_frames_cpu.py) learns from unlabelled photographs and frames, once.
2. configs/transfer/segmentation.py:camvid trains (a) from scratch and (b) from that encoder;
   camvid_linear trains (c) a linear layer on the frozen encoder and (d) on an untrained one, for each seed
   and for equally many steps, on the day frames 0006R0 and 0016E5.
   (e) and (f) are (a) and (b) with a fifth of the labels, 61 frames, and half of the steps.
3. Each network is measured on day (the end of 0016E5) and on dusk (0001TP), void ignored.

Runs that have finished are not trained again. The extra `video` reads the clips. The last line is one JSON
object.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

from real_data import unpack_camvid, unpack_unlabelled
from side_by_side import machine

FIFTH = ("--config.data.split=train[:20%]", f"--config.epochs={380 / 7}")  # 7 batches of 8 an epoch
ARMS = {  # name: (variant of the recipe, further options)
  "scratch": ("camvid", ()),
  "moco": ("camvid", ()),
  "moco_linear": ("camvid_linear", ()),
  "untrained_linear": ("camvid_linear", ()),
  "scratch_fifth": ("camvid", FIFTH),
  "moco_fifth": ("camvid", FIFTH),
}
SPLITS = {"day": "val", "dusk": "test"}


def run(*words: str) -> None:
  subprocess.run([sys.executable, "-m", "ssl_jax", *words], check=True)


def pretrain(shared: pathlib.Path, work: pathlib.Path) -> pathlib.Path:
  """Trains the encoder; returns the folder of its run."""
  frames, workdir = work / "frames", work / "moco"
  if not frames.exists():
    unpack_unlabelled(shared, frames)
  recipe = "--config=configs/pretrain/moco_frames_cpu.py"
  run("train", recipe, f"--workdir={workdir}", f"--config.data.data_dir={frames}")
  return workdir


def measure(
  arm: str, seed: int, encoder: pathlib.Path, work: pathlib.Path, options: list[str]
) -> dict[str, dict]:
  """Trains one network and measures it on both splits: {split: scalars and IoU by class}."""
  workdir = work / f"{arm}-{seed}"
  start = [f"--config.start.workdir={encoder}"] if arm.startswith("moco") else []
  variant, own = ARMS[arm]
  recipe = f"--config=configs/transfer/segmentation.py:{variant}"
  data = [f"--config.data.data_dir={work / 'camvid'}"]
  run("train", recipe, f"--workdir={workdir}", f"--config.seed={seed}", *data, *start, *own, *options)
  found = {}
  for name, split in SPLITS.items():
    kept = workdir / f"{name}.json"
    if not kept.exists():
      recipe = "--config=configs/transfer/miou.py"
      run("evaluate", recipe, f"--workdir={workdir}", f"--config.data.test_split={split}")
      written = max(workdir.glob("evaluations/*/segmentation-*.json"), key=lambda path: path.stat().st_mtime)
      written.with_suffix(".png").rename(workdir / f"{name}.png")
      written.rename(kept)
    stored = json.loads(kept.read_text())
    found[name] = stored["scalars"] | {"iou": stored["protocol"]["iou"]}
  return found


def summary(values: list[float]) -> dict[str, float]:
  """Mean and standard error in percent, and the values."""
  error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
  return {
    "mean": round(100 * statistics.fmean(values), 2),
    "standard_error": round(100 * error, 2),
    "values": [round(100 * value, 2) for value in values],
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", type=pathlib.Path, required=True)
  parser.add_argument("--work", type=pathlib.Path, required=True)
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--epochs", type=float, default=0, help="0: as in the recipe")
  parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
  args = parser.parse_args()
  if not (args.work / "camvid").exists():
    unpack_camvid(args.data, args.work / "camvid")
  encoder = pretrain(args.data, args.work)
  options = [f"--config.epochs={args.epochs}"] if args.epochs else []
  rows = {
    arm: [measure(arm, seed, encoder, args.work, options) for seed in range(args.seeds)] for arm in args.arms
  }
  table = {
    arm: {
      f"{name}_{score}": summary([row[name][score] for row in found])
      for name in SPLITS
      for score in ("miou", "pixel_accuracy", "mean_accuracy")
    }
    for arm, found in rows.items()
  }
  print(json.dumps({"benchmark": "segmentation_camvid", "seeds": args.seeds, **table, **machine()}))


if __name__ == "__main__":
  main()
