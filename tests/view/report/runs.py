"""Folders as runs leave them, small and quick to make."""

import json
import pathlib
import shutil

import numpy as np

from ssl_jax.view import knn_atlas
from ssl_jax.view.confusion import plot_confusion
from ssl_jax.view.video_stream import StreamPictures, plot_over_time

VERSIONS = {"jax": "0.10.2", "flax": "0.12.5"}
PROTOCOL = {"step": 60, "data": "synthetic", "test_split": "test", "versions": VERSIONS}
HOSTILE = "<script>window.broken = 1</script>"  # as the name of a class


def write_run(
  folder: pathlib.Path,
  *,
  learning_rate: float = 0.05,
  rows: int = 6,
  evaluated: bool = True,
  class_names=("cat", HOSTILE, "dog"),
):
  """A run of 60 steps, resumed once, with two accuracies; evaluated by k-NN, under corruption and with
  test-time training.
  """
  folder.mkdir(parents=True)
  config = {
    "method": {"name": "moco"},
    "encoder": {"name": "resnet10"},
    "data": {"name": "synthetic", "split": "train"},
    "batch_size": 64,
    "optimizer": {"learning_rate": learning_rate},
  }
  start = {
    "total_steps": 60,
    "began": 1.75e9,
    "parameters": 1_234_567,
    "config": config,
    "data": {"num_examples": 640, "num_classes": 3},
    "device": "1 x cpu",
    "processes": 1,
    "versions": VERSIONS,
    "commit": "abc123",
  }
  write_lines(folder / "starts.jsonl", [{**start, "step": 0}, {**start, "step": 30}])
  write_lines(
    folder / "metrics.jsonl",
    [
      {
        "step": 10 * i,
        "epoch": float(i),
        "loss": 2.0 / i,
        "contrast_accuracy": 0.1 * i,
        "gradient_norm": 1.0,
        "learning_rate": learning_rate / i,
        "images_per_second": 500.0,
        "input_images_per_second": 9e4,
        "step_images_per_second": 510.0,
        "waiting_fraction": 0.02,
      }
      for i in range(1, rows + 1)
    ],
  )
  if evaluated:
    for name in ("untrained", "moco"):
      write_evaluation(
        folder,
        "knn",
        name,
        {"top1": 0.5, "top5": 1.0, "train_loss": 0.7},
        {"k": 20},
        seen=make_atlas(class_names),
      )
    write_evaluation(
      folder,
      "robustness",
      "moco",
      {"error": 0.5},
      {"error": {"fog": {"1": 0.4, "5": 0.6}, "snow": {"1": 0.3, "5": 0.9}}, "test_rows": 90},
    )
    cells = {"clean": {"0": 0.1}, "fog": {"5": 0.4}, "snow": {"5": 0.5}}
    write_evaluation(
      folder,
      "ttt",
      "moco",
      {"error": 0.45},
      {
        "error": cells,
        "error_without": {name: {s: e + 0.05 for s, e in row.items()} for name, row in cells.items()},
        "mode": "online",
        "standard_error": {name: {s: 0.02 for s in row} for name, row in cells.items()},
        "mean": {"standard_error": 0.015},
        "test_rows": 90,
      },
    )
    (folder / "pictures").mkdir()
    plot_confusion(folder / "pictures" / "reconstructions.png", np.eye(3, dtype=int), title="a picture")
  return folder


def write_streams(folder: pathlib.Path, windows=(1, 4, 0)) -> pathlib.Path:
  """Adds to a run evaluations along two videos, one for each window, with their pictures."""
  at = folder / "evaluations" / "step60"
  for window in windows:
    protocol = {
      "task": "ttt_video",
      "objective": "own",
      "carry": True,
      "window": window,
      "standard_error": {"miou": 0.02, "miou_frozen": 0.01, "gain": 0.01},
    }
    scalars = {"miou": 0.6 if window == 4 else 0.5, "miou_frozen": 0.45}
    write_evaluation(folder, f"window_{window or 'all'}", "moco", scalars, protocol)
  pictures = StreamPictures(0, 9)
  for moment in range(9):
    mask = np.full((20, 30), moment, np.uint8)
    pictures.add(0, moment, np.full((20, 30, 3), 20 * moment, np.uint8), mask, [mask, mask])
  pictures.write(at / "streams")
  kinds = {kind: np.linspace(0, 1, 9) for kind in ("adapted", "before", "frozen")}
  plot_over_time(at / "streams.png", {"a": kinds, "b": kinds}, title="streams")
  for path in at.glob("streams*"):
    for window in windows:
      name = path.name.replace("streams", f"window_{window or 'all'}-moco")
      shutil.copy(path, path.with_name(name))
    path.unlink()
  return folder


def write_lines(path: pathlib.Path, lines) -> None:
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_evaluation(
  folder: pathlib.Path, task: str, backbone: str, scalars: dict, protocol: dict, *, seen: dict | None = None
) -> None:
  path = folder / "evaluations" / "step60" / f"{task}-{backbone.replace(' ', '_')}.json"
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(
    json.dumps({"scalars": scalars, "protocol": {**PROTOCOL, "task": task, "backbone": backbone, **protocol}})
  )
  if seen:
    np.savez_compressed(path.with_suffix(".npz"), **seen)


def make_atlas(class_names, count: int = 30, side: int = 16) -> knn_atlas.KnnAtlas:
  """Images of one colour a class whose features tell the classes apart."""
  rng = np.random.default_rng(0)
  labels = np.repeat(np.arange(3, dtype=np.int32), count)
  images = np.clip(
    80 * labels[:, None, None, None] + rng.integers(0, 60, (len(labels), side, side, 3)), 0, 255
  ).astype(np.uint8)

  def read():
    yield {"image": images, "label": labels}

  near = np.stack([np.arange(len(labels)), np.roll(np.arange(len(labels)), 1)], 1)
  found = {
    "label": labels,
    "prediction": labels,
    "index": np.arange(len(labels)),
    "features": np.eye(3)[labels] + 0.1 * rng.normal(size=(len(labels), 3)),
    "neighbours": near,
    "neighbour_labels": labels[near],
    "similarity": np.full(near.shape, 0.9, np.float32),
  }
  return knn_atlas.make_atlas(found, read, read, class_names)
