"""Measures miners: seconds of video for each second of processor time, and memory with a long clip.

    python tests/benchmarks/mining.py [MINER ...] [--clips FOLDER] [--minutes 10]

Every miner runs with its default options, each clip in this order in one process: first over the clips of
FOLDER, then over one clip of --minutes, in which the clips of FOLDER follow each other at 240 pixels of
height and 30 frames a second with a sound of noise. The last line is one JSON object: by miner,
"times_real_time", of the folder and of the long clip, and the largest resident memory in MB of the process
that mined the long clip.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import av
import numpy as np
from PIL import Image

from ssl_jax.mining import clip_workers, miners, runner
from ssl_jax.video.clips import open_clip

FOLDER = pathlib.Path(__file__).resolve().parents[3] / "shared/data/davis"
WIDTH, HEIGHT, RATE, SOUND_RATE = 424, 240, 30, 16_000


def write_long(path: pathlib.Path, clips: list[pathlib.Path], minutes: float) -> None:
  """Writes the clips one after another until the duration is reached."""
  rng = np.random.default_rng(0)
  with av.open(str(path), "w") as out:
    video = out.add_stream("mpeg4", rate=RATE)
    video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    sound = out.add_stream("pcm_s16le", rate=SOUND_RATE, layout="mono")
    frames = itertools.islice(_frames(clips), round(minutes * 60 * RATE))
    for number, pixels in enumerate(frames):
      frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
      frame.pts = number
      out.mux(video.encode(frame))
      if number % RATE == 0:
        noise = rng.integers(-3000, 3000, (1, SOUND_RATE), dtype=np.int16)
        heard = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
        heard.sample_rate, heard.pts = SOUND_RATE, number // RATE * SOUND_RATE
        out.mux(sound.encode(heard))
    out.mux(video.encode())
    out.mux(sound.encode())


def _frames(clips: list[pathlib.Path]) -> Iterator[np.ndarray]:
  """The frames of the clips over and over, uint8[HEIGHT, WIDTH, 3]."""
  for path in itertools.cycle(clips):
    with open_clip(path) as clip:
      for pixels in clip:
        yield np.asarray(Image.fromarray(pixels).resize((WIDTH, HEIGHT)))


def mine(name: str, folder: pathlib.Path) -> dict[str, float]:
  """Mines all clips of a folder in this process."""
  with tempfile.TemporaryDirectory() as output:
    mining = runner.Mining(name, {}, str(folder))
    results = runner.open_results(mining, pathlib.Path(output))
    work = clip_workers.Work(name, {}, 0, str(folder), results)
    paths = sorted(path.name for path in folder.iterdir() if path.suffix in (".mp4", ".mkv"))
    found = [clip_workers.mine_clip(work, path) for path in paths]
  seconds, spent = sum(result.seconds for result in found), sum(result.work for result in found)
  return {
    "clips": len(found),
    "records": sum(len(result.records) for result in found),
    "seconds_of_video": round(seconds, 1),
    "times_real_time": round(seconds / spent, 1),
    "megabytes": round(_peak_kilobytes() / 1024),
  }


def _peak_kilobytes() -> int:
  """The largest resident memory of this process; `getrusage` would include that of its parent."""
  lines = pathlib.Path("/proc/self/status").read_text().splitlines()
  return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("miners", nargs="*", default=miners.known())
  parser.add_argument("--clips", type=pathlib.Path, default=FOLDER)
  parser.add_argument("--minutes", type=float, default=10)
  parser.add_argument("--one", action="store_true", help="mine --clips by one miner, in this process")
  args = parser.parse_args()
  if args.one:
    print(json.dumps(mine(args.miners[0], args.clips)))
    return
  found = {}
  with tempfile.TemporaryDirectory() as folder:
    write_long(pathlib.Path(folder, "long.mkv"), sorted(args.clips.glob("*.mp4")), args.minutes)
    for name in args.miners:
      found[name] = {}
      for what, clips in (("clips", args.clips), ("long clip", pathlib.Path(folder))):
        command = [sys.executable, __file__, name, "--one", "--clips", clips]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[name][what] = json.loads(printed.splitlines()[-1])
        print(name, what, found[name][what], flush=True)
  versions = {name: importlib.metadata.version(name) for name in ("av", "opencv-python-headless", "numpy")}
  print(json.dumps({"benchmark": "mining", "minutes": args.minutes, **found, "versions": versions}))


if __name__ == "__main__":
  main()
