"""Measures memories of test-time training on CamVid's streams, over seeds of training.

    python tests/benchmarks/ttt_video_study.py --data SHARED_DATA --work FOLDER [--seeds 0 1 2] [--arms ARM]

1. configs/pretrain/joint_segmentation.py:camvid and camvid_plain are trained for each seed on the day
   sequences 0006R0 and 0016E5 at 1 Hz.
2. configs/ttt/video.py:camvid measures every arm on the streams of the split "test": the second part of the
   dusk sequence 0001TP at 1 Hz, and the end of 0016E5 at 15 Hz. The options of the arms were chosen with
   seed 0 on the split "val", the first part of 0001TP.

What has finished is not computed again. Writes FOLDER/study.json and FOLDER/study.png, the score against the
size of the window; the last line is one JSON object: by arm and stream the mean mIoU of frames in percent
over seeds and its standard error, and the gain against the same network without adaptation, paired by seed.
"""

from __future__ import annotations

import argparse
import functools
import json
import pathlib
import shutil
import statistics
import subprocess
import sys

from matplotlib.figure import Figure
from real_data import unpack_camvid_videos
from side_by_side import machine

RESET = ("carry=False", "learning_rate=1e-2")  # a larger step, for a network that takes only one
ARMS = {  # name: options of the task
  "joint only": ("steps=0",),
  "no memory": (*RESET, "window=1"),
  "explicit 16": RESET,
  "implicit": ("window=1",),
  "both 4": ("window=4",),
  "both 16": (),
  "both 64": ("window=64",),
  "both all": ("window=0",),
  "both 16, shuffled": ("order=shuffled",),
  "offline": ("steps=0", "offline=100"),
  "matrices": ("learning_rate=1e-4", "trainable=('encoder/*/kernel','decoder/*/kernel')"),
  "Tent": ("objective=tent",),
}
WINDOWS = {"implicit": 1, "both 4": 4, "both 16": 16, "both 64": 64, "both all": 128}
PLAIN = "main task only"


def run(*words: str) -> None:
  subprocess.run([sys.executable, "-m", "ssl_jax", *words], check=True)


@functools.cache
def train(work: pathlib.Path, variant: str, seed: int) -> pathlib.Path:
  """Trains a network unless it is there; returns the folder of its run."""
  workdir = work / f"{variant}-{seed}"
  recipe = f"--config=configs/pretrain/joint_segmentation.py:{variant}"
  run(
    "train",
    recipe,
    f"--workdir={workdir}",
    f"--config.data.data_dir={work / 'data'}",
    f"--config.seed={seed}",
  )
  return workdir


def measure(workdir: pathlib.Path, arm: str, options: tuple[str, ...], split: str) -> dict:
  """The result of an arm: its scalars and protocol."""
  kept = workdir / f"{arm.replace(' ', '-')}-{split}.json"
  if not kept.exists():
    own = [f"--config.tasks.ttt_video.{option}" for option in options]
    variant = {"test": "camvid", "val": "camvid_val"}[split]
    run("evaluate", f"--config=configs/ttt/video.py:{variant}", f"--workdir={workdir}", *own)
    written = max(workdir.glob("evaluations/*/ttt_video-*.json"), key=lambda path: path.stat().st_mtime)
    for suffix in (".png", ".gif", "-strip.png"):
      picture = written.with_name(written.stem + suffix)
      if picture.exists():
        shutil.copy(picture, kept.with_name(kept.stem + suffix))
    written.rename(kept)
  return json.loads(kept.read_text())


def summary(values: list[float]) -> dict[str, float]:
  """Mean and standard error in percent."""
  error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
  return {"mean": round(100 * statistics.fmean(values), 2), "error": round(100 * error, 2)}


def table(found: dict[str, list[dict]]) -> dict[str, dict]:
  """By arm and stream: the score and the gain, over seeds."""
  rows = {}
  for arm, results in found.items():
    rows[arm] = {}
    for stream in results[0]["protocol"]["by_video"]:
      scores = [result["protocol"]["by_video"][stream] for result in results]
      rows[arm][stream] = {
        "miou": summary([score["adapted"] for score in scores]),
        "gain": summary([score["adapted"] - score["frozen"] for score in scores]),
      }
  return rows


def plot(path: pathlib.Path, rows: dict[str, dict]) -> None:
  """The gain against the size of the window, with errors over seeds, for each stream."""
  arms = [arm for arm in WINDOWS if arm in rows]
  if not arms:
    return
  figure = Figure(figsize=(5, 3.2), dpi=120)
  axis = figure.subplots()
  for stream in rows[arms[0]]:
    gains = [rows[arm][stream]["gain"] for arm in arms]
    axis.errorbar(
      [WINDOWS[arm] for arm in arms],
      [gain["mean"] for gain in gains],
      [gain["error"] for gain in gains],
      label=stream,
      marker="o",
      capsize=3,
    )
  axis.set_xscale("log", base=2)
  axis.set_xticks([WINDOWS[arm] for arm in arms], [arm.split()[-1] for arm in arms])
  axis.set_xlabel("frames of the window; implicit: the present one alone")
  axis.set_ylabel("gain in mIoU of frames, points")
  axis.axhline(0, color="grey", linewidth=0.8)
  axis.legend(frameon=False, fontsize=8)
  figure.tight_layout()
  figure.savefig(path)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", type=pathlib.Path, required=True)
  parser.add_argument("--work", type=pathlib.Path, required=True)
  parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
  parser.add_argument("--arms", nargs="*", default=[PLAIN, *ARMS])
  args = parser.parse_args()
  if not (args.work / "data").exists():
    unpack_camvid_videos(args.data, args.work / "data")
  found: dict[str, list[dict]] = {arm: [] for arm in args.arms}
  for seed in args.seeds:
    for arm in args.arms:
      workdir = train(args.work, "camvid_plain" if arm == PLAIN else "camvid", seed)
      found[arm].append(measure(workdir, arm, ARMS.get(arm, ("steps=0", "trainable=()")), "test"))
      print(seed, arm, json.dumps(found[arm][-1]["scalars"]), flush=True)
  rows = table(found)
  (args.work / "study.json").write_text(json.dumps(rows, indent=1))
  plot(args.work / "study.png", rows)
  print(json.dumps({"benchmark": "ttt_video_study", "seeds": args.seeds, "arms": rows, **machine()}))


if __name__ == "__main__":
  main()
