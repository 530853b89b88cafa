"""Measures what a pre-trained encoder is worth for detection on small sets of photographs, over seeds.

    python tests/benchmarks/detection_transfer.py --data SHARED_DATA --work FOLDER [--seeds 3] [--parallel 1]

1. MoCo v2 (configs/pretrain/moco_frames_cpu.py, longer by --pretrain_epochs) learns from unlabelled
   photographs and frames, once. None of the test images, and no image of Penn-Fudan, is among them.
2. configs/transfer/detection.py:VARIANT trains from scratch and from that encoder, for each seed and for
   equally many steps, on Penn-Fudan (boxes and masks) and on the sample of PASCAL VOC (boxes).
3. Each network is measured on the held-back images: COCO's metric for Penn-Fudan, VOC's (area) for VOC.

Runs that have finished are not trained again. `--parallel` runs train at once, for a GPU with room. The last
line is one JSON object.
"""

import argparse
import concurrent.futures
import json
import pathlib
import subprocess
import sys
import time

from real_data import unpack_penn_fudan_boxes, unpack_unlabelled, unpack_voc_boxes
from segmentation_camvid import summary
from side_by_side import machine

SETS = {  # name: (variant of the recipe, of its evaluation, how to unpack it)
  "penn_fudan": ("penn_fudan", "small", unpack_penn_fudan_boxes),
  "voc": ("voc_cpu", "small_voc", unpack_voc_boxes),
}
ARMS = ("scratch", "moco")
SCORES = ("_ap50", "_ap", "_ap75")


def run(log: pathlib.Path, *words: str) -> None:
  with log.open("a") as out:
    subprocess.run([sys.executable, "-m", "ssl_jax", *words], check=True, stdout=out, stderr=out)


def pretrain(args: argparse.Namespace) -> pathlib.Path:
  """Trains the encoder; returns the folder of its run."""
  frames, workdir = args.work / "frames", args.work / "moco"
  if not frames.exists():
    unpack_unlabelled(args.data, frames)
  recipe = "--config=configs/pretrain/moco_frames_cpu.py"
  options = [f"--config.data.data_dir={frames}", f"--config.epochs={args.pretrain_epochs}"]
  run(args.work / "moco.log", "train", recipe, f"--workdir={workdir}", *options)
  return workdir


def measure(name: str, arm: str, seed: int, encoder: pathlib.Path | None, args: argparse.Namespace) -> dict:
  """Trains one network and measures it: its scores and the seconds of its training."""
  variant, evaluation, _ = SETS[name]
  workdir = args.work / f"{name}-{arm}-{seed}"
  kept, log = workdir / "scores.json", args.work / f"{workdir.name}.log"
  if not kept.exists():
    start = [f"--config.start.workdir={encoder}"] if encoder else []
    options = [f"--config.epochs={args.epochs}"] if args.epochs else []
    options += [f"--config.data.data_dir={args.work / name}", f"--config.seed={seed}"]
    recipe, began = f"--config=configs/transfer/detection.py:{variant}", time.monotonic()
    run(log, "train", recipe, f"--workdir={workdir}", *start, *options)
    seconds = round(time.monotonic() - began)
    recipe = f"--config=configs/transfer/average_precision.py:{evaluation}"
    run(log, "evaluate", recipe, f"--workdir={workdir}")
    written = max(workdir.glob("evaluations/*/detection-*.json"), key=lambda path: path.stat().st_mtime)
    kept.write_text(json.dumps({**json.loads(written.read_text())["scalars"], "seconds": seconds}))
  return json.loads(kept.read_text())


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", type=pathlib.Path, required=True)
  parser.add_argument("--work", type=pathlib.Path, required=True)
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--epochs", type=float, default=0, help="0: as in the recipe")
  parser.add_argument("--pretrain_epochs", type=float, default=200.0)
  parser.add_argument("--parallel", type=int, default=1)
  parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
  parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
  args = parser.parse_args()
  args.work.mkdir(parents=True, exist_ok=True)
  for name in args.sets:
    if not (args.work / name).exists():
      SETS[name][2](args.data, args.work / name)
  with concurrent.futures.ThreadPoolExecutor(args.parallel) as pool:
    encoder = pool.submit(pretrain, args) if "moco" in args.arms else None
    found = {}
    for arm in args.arms:
      for seed in range(args.seeds):
        for name in args.sets:
          start = encoder.result() if encoder and arm == "moco" else None
          found[name, arm, seed] = pool.submit(measure, name, arm, seed, start, args)
    rows = {key: future.result() for key, future in found.items()}
  table = {}
  for name in args.sets:
    for arm in args.arms:
      of_arm = [rows[name, arm, seed] for seed in range(args.seeds)]
      scores = [key for key in of_arm[0] if key.endswith(SCORES)]
      row = {key: summary([one[key] for one in of_arm]) for key in scores}
      table[f"{name}_{arm}"] = {**row, "seconds": [one["seconds"] for one in of_arm]}
  print(json.dumps({"benchmark": "detection_transfer", "seeds": args.seeds, **table, **machine()}))


if __name__ == "__main__":
  main()
