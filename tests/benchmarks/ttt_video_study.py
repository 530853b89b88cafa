"""Measures memories of test-time training on real streams, over seeds of training.

    python tests/benchmarks/ttt_video_study.py --data SHARED_DATA --work FOLDER [--set davis] [--seeds 0 1 2]

1. configs/pretrain/joint_segmentation.py:SET and SET_plain are trained for each seed.
2. configs/ttt/video.py:SET measures every arm on the streams of the split "test".

camvid: trained on the day sequences 0006R0 and 0016E5 at 1 Hz. The streams are the second part of the dusk
  sequence 0001TP at 1 Hz, and the end of 0016E5 at 15 Hz. Options were chosen on the first part of 0001TP.
davis: foreground and background, trained on the first third of every clip. The streams are the rest of ten
  clips at 24 Hz. Options were chosen on the rest of the other five.

Options were chosen with seed 0. What has finished is not computed again. Writes FOLDER/study.json and
FOLDER/study.png, the gain against the size of the window; the last line is one JSON object: by arm and stream
the mean mIoU of frames in percent over seeds and its standard error, and the gain against the same network
without adaptation, paired by seed; "all streams" is the mean over all frames.
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
from real_data import unpack_camvid_videos, unpack_davis_videos
from side_by_side import machine

RESET = {  # the rates of networks that take only one step, or many
  "camvid": ("carry=False", "learning_rate=1e-2"),
  "davis": ("carry=False", "learning_rate=1e-4"),
}
ARMS = {  # name: options of the task
  "joint only": ("steps=0",),
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
ONLY = {"matrices": "camvid"}  # arms that are not those of every set
UNPACK = {"camvid": unpack_camvid_videos, "davis": unpack_davis_videos}
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


def arms_of(name: str) -> dict[str, tuple[str, ...]]:
  """The arms of a set: name -> options of the task."""
  reset = {"no memory": (*RESET[name], "window=1"), "explicit 16": RESET[name]}
  return {arm: options for arm, options in {**ARMS, **reset}.items() if ONLY.get(arm, name) == name}


def measure(workdir: pathlib.Path, arm: str, options: tuple[str, ...], variant: str) -> dict:
  """The result of an arm: its scalars and protocol."""
  kept = workdir / f"{arm.replace(' ', '-')}-{variant}.json"
  if not kept.exists():
    own = [f"--config.tasks.ttt_video.{option}" for option in options]
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
    by_video = [
      {
        **result["protocol"]["by_video"],
        "all streams": {
          "adapted": result["scalars"]["miou"],
          "frozen": result["scalars"].get("miou_frozen", result["scalars"]["miou"]),
        },
      }
      for result in results
    ]
    for stream in by_video[0]:
      scores = [result[stream] for result in by_video]
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
  streams = [*rows[arms[0]]]
  for stream in streams if len(streams) < 5 else streams[-1:]:
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
  parser.add_argument("--set", choices=[*UNPACK], default="camvid")
  parser.add_argument("--arms", nargs="*", help="default: all")
  args = parser.parse_args()
  arms = {PLAIN: ("steps=0", "trainable=()"), **arms_of(args.set)}
  if not (args.work / "data").exists():
    UNPACK[args.set](args.data, args.work / "data")
  found: dict[str, list[dict]] = {arm: [] for arm in args.arms or arms}
  for seed in args.seeds:
    for arm in found:
      workdir = train(args.work, f"{args.set}_plain" if arm == PLAIN else args.set, seed)
      found[arm].append(measure(workdir, arm, arms[arm], args.set))
      print(seed, arm, json.dumps(found[arm][-1]["scalars"]), flush=True)
  rows = table(found)
  (args.work / "study.json").write_text(json.dumps(rows, indent=1))
  plot(args.work / "study.png", rows)
  print(
    json.dumps(
      {"benchmark": "ttt_video_study", "set": args.set, "seeds": args.seeds, "arms": rows, **machine()}
    )
  )


if __name__ == "__main__":
  main()
