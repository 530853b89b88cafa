"""Runs a miner over a folder of clips and writes what it finds."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ssl_jax.data import sources
from ssl_jax.data.elements import Record
from ssl_jax.data.reader import cores
from ssl_jax.mining import miners
from ssl_jax.mining.clip_results import ClipResults
from ssl_jax.mining.clip_workers import Progress, Work, mine_clips
from ssl_jax.mining.miner import Completion, Miner
from ssl_jax.mining.sheet import draw_sheet
from ssl_jax.run.commit import running_commit

_SHEET = 400  # records that the rows of the picture sheet are made of
_NAMED = 20  # bad clips that are named on the terminal
_FORMAT = 1  # of what miners store; changed where stored results no longer fit


@dataclasses.dataclass(frozen=True)
class Mining:
  """Which miner runs on which clips."""

  miner: str
  options: Mapping[str, Any]  # of the miner
  data_dir: str  # the folder of the clips, see `video_folder.open_video_folder`
  split: str = "train[:80%]"  # of the clips, for the split "train" of the data set
  test_split: str = "train[80%:]"  # for its split "test"; "": no clip is held back
  seed: int = 0

  def find_clips(self) -> dict[str, list[str]]:
    """The clips of the splits "train" and "test", as sorted paths relative to the folder.

    Raises: ValueError for a folder or split that does not exist, or for a clip that is in both splits.
    """
    found = {}
    for name, split in (("train", self.split), ("test", self.test_split)):
      source = sources.make("video_folder", split=split, data_dir=self.data_dir) if split else ()
      paths = (source.name(i) for i in range(len(source))) if source else ()
      root = os.path.expanduser(self.data_dir)
      found[name] = sorted({pathlib.Path(os.path.relpath(path, root)).as_posix() for path in paths})
    both = sorted(set(found["train"]) & set(found["test"]))
    if both:
      raise ValueError(
        f"the clip {both[0]} is in --split={self.split} and in --test_split={self.test_split}; held-back "
        "clips must be others"
      )
    return found


def run(
  mining: Mining, output: str | pathlib.Path, *, processes: int = 0, progress: Progress = lambda *_: None
) -> pathlib.Path:
  """Mines clips and writes a TFDS data set, its statistics and a picture sheet.

  A run that was stopped continues with the clips that are missing. The result does not depend on the number
  of processes. Clips that cannot be decoded are left out and named in the statistics.

  Args:
    output: the folder of data sets. It gets OUTPUT/MINER with the data set 1.0.0, statistics.json, sheet.png,
      and fitted.npz if the miner fits something to the training clips.
    processes: 0: one for each core; 1: this process alone.
  Returns: the folder of the data set.
  Raises: ValueError for a wrong name or option, for clips that are in two splits, if the data set exists, or
    if nothing is found in the training clips; RuntimeError if a worker process dies.
  """
  from ssl_jax.mining import written_data  # here: worker processes do without TFDS

  miner, output = miners.make(mining.miner, **mining.options), pathlib.Path(output).expanduser()
  home, finished = output / mining.miner, written_data.folder_of(output, mining.miner)
  if finished.exists():
    raise ValueError(f"the data set {finished} exists already; use another --output, or delete {home}")
  clips = mining.find_clips()
  results = open_results(mining, output)
  work = Work(mining.miner, mining.options, mining.seed, os.path.expanduser(mining.data_dir), results)
  mine_clips(work, [*clips["train"], *clips["test"]], processes or cores(), progress)
  statistics = _statistics(mining, results, clips)
  if not statistics["records"]["train"]:
    raise ValueError(f"nothing was found in the training clips of {mining.data_dir}; {_reasons(statistics)}")
  completion = miner.fit(_records(results, clips["train"])) if miner.fit else Completion(dict, {})
  statistics |= completion.statistics
  completed = {
    split: lambda of_split=of_split: map(completion.complete, _records(results, of_split))
    for split, of_split in clips.items()
    if statistics["records"][split]
  }
  _write_findings(home, miner, completed["train"](), statistics, completion)
  about = f"Mined from clips by `ssl-jax prepare {mining.miner}`."
  written_data.write(output, mining.miner, miner.features(), completed, about)
  shutil.rmtree(results.folder)
  print(f"{finished}: {statistics['records']}; {_reasons(statistics)}")
  return finished


def open_results(mining: Mining, output: pathlib.Path) -> ClipResults:
  """Opens the results of clips that a run to `output` has so far."""
  settings = {"format": _FORMAT, "options": dict(mining.options), "seed": mining.seed}
  folder = output / mining.miner / "unfinished"
  folder.mkdir(parents=True, exist_ok=True)
  return ClipResults(folder, os.path.expanduser(mining.data_dir), settings)


def _records(results: ClipResults, clips: Iterable[str]) -> Iterator[Record]:
  """The records of clips, in order; one clip at a time is in memory."""
  for clip in clips:
    yield from ({**record, "clip": clip} for record in results.load(clip).records)


def _statistics(mining: Mining, results: ClipResults, clips: Mapping[str, list[str]]) -> dict[str, Any]:
  """Counts what was found and rejected."""
  rejected, bad, empty = collections.Counter(), {}, []
  records, seconds, work = dict.fromkeys(clips, 0), 0.0, 0.0
  for split, of_split in clips.items():
    for clip in of_split:
      result = results.load(clip)
      records[split] += len(result.records)
      rejected.update(result.rejected)
      seconds, work = seconds + result.seconds, work + result.work
      if result.error:
        bad[clip] = result.error
      elif not result.records:
        empty.append(clip)
  return {
    **dataclasses.asdict(mining),
    "clips": {split: len(of_split) for split, of_split in clips.items()},
    "records": records,
    "rejected": dict(sorted(rejected.items())),
    "bad_clips": bad,
    "clips_without_records": empty,
    "held_back_clips": clips["test"],
    "seconds_of_video": round(seconds, 3),
    "seconds_of_work": round(work, 3),
  }


def _reasons(statistics: Mapping[str, Any]) -> str:
  """What was rejected and which clips are bad, for people."""
  bad = statistics["bad_clips"]
  rejected = ", ".join(f"{count} {reason}" for reason, count in statistics["rejected"].items())
  named = "".join(f"\n  {clip}: {reason}" for clip, reason in list(bad.items())[:_NAMED])
  more = f"\n  and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
  return f"rejected: {rejected or 'nothing'}; bad clips: {len(bad)}{named}{more}"


def _write_findings(
  home: pathlib.Path,
  miner: Miner,
  records: Iterator[Record],
  statistics: Mapping[str, Any],
  completion: Completion,
) -> None:
  """Writes the statistics, what was fitted, and the picture sheet of records spread over all clips."""
  total = statistics["records"]["train"]
  step = -(-total // _SHEET)
  rows = miner.rows([record for number, record in enumerate(records) if number % step == 0])
  draw_sheet(home / "sheet.png", rows, f"{statistics['miner']}: {total} records of {statistics['data_dir']}")
  if completion.arrays:
    import numpy as np

    np.savez(home / "fitted.npz", **completion.arrays)  # pyright: ignore[reportArgumentType]
  told = {**statistics, "commit": running_commit()}
  (home / "statistics.json").write_text(json.dumps(told, indent=1) + "\n")
