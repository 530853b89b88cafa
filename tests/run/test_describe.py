"""What `ssl-jax describe videos` says about data sets, and its refusals."""

import pytest

from ssl_jax.run.describe import describe
from tests.data.test_video_layouts import city_tree, youtube_tree
from tests.data.test_video_masks import write_image, write_mask


def columns(capsys):
  """The lines of the table after its headings, as {heading: cell}, and the other lines."""
  lines = capsys.readouterr().out.splitlines()
  headings = lines[0].split("  ")
  headings = [heading.strip() for heading in headings if heading.strip()]
  starts = [lines[0].index(heading) for heading in headings]
  rows, others = [], []
  for line in lines[1:]:
    if ": " in line:
      others.append(line)
    else:
      ends = [*starts[1:], None]
      rows.append({name: line[a:b].strip() for name, a, b in zip(headings, starts, ends)})
  return rows, others


def test_labelled_frames_of_a_published_set(tmp_path, capsys):
  city_tree(tmp_path, between=range(30, 40))
  found = describe(["videos"], str(tmp_path))
  (row,), (remark,) = columns(capsys)
  assert row == {
    "set": "cityscapes_vps",
    "split": "val",
    "mean length": "0.4 s",
    "frames": "12",
    "labelled": "4",
    "videos": "2",
    "rate": "17/s",
    "classes": "19",
  }
  assert remark == "cityscapes_vps: the rate is the one that is published"
  assert found[0].seconds == pytest.approx(6 / 17)


def test_the_rate_of_files_is_told_apart_from_that_of_the_paper(tmp_path, capsys):
  youtube_tree(tmp_path)
  describe(["videos"], str(tmp_path))
  rows, (remark,) = columns(capsys)
  assert [(row["split"], row["frames"], row["labelled"]) for row in rows] == [
    ("train", "6", "6"),
    ("valid", "3", "1"),
  ]
  assert {row["classes"] for row in rows} == {"3 + background"} and rows[0]["mean length"] == "0.5 s"
  assert remark.endswith("published for its files, 6 frames a second; the paper's table states 30")


def test_a_split_that_cannot_be_read_does_not_hide_the_others(tmp_path, capsys):
  for video in ("a", "b"):
    write_image(tmp_path / f"JPEGImages/480p/{video}/00000.jpg")
  write_mask(tmp_path / "Annotations/480p/a/00000.png", [0, 1])
  for split, video in (("val", "a"), ("test-dev", "b")):
    (tmp_path / "ImageSets/2017").mkdir(parents=True, exist_ok=True)
    (tmp_path / f"ImageSets/2017/{split}.txt").write_text(video)
  describe(["videos"], str(tmp_path), "davis")
  rows, others = columns(capsys)
  assert [row["split"] for row in rows] == ["val"]
  assert any(line.startswith("not described: test-dev: not one mask of the 1 pairs") for line in others)


def test_masks_without_a_rate(tmp_path, capsys):
  write_image(tmp_path / "images/a/1.png")
  write_mask(tmp_path / "masks/a/1.png", [0])
  describe(["videos"], str(tmp_path))
  (row,), (remark,) = columns(capsys)
  assert (row["set"], row["mean length"], row["rate"], row["classes"]) == ("video_masks", "-", "-", "-")
  assert "do not tell their rate" in remark


def test_folders_of_frames(tmp_path, capsys):
  for video in ("a", "b"):
    for frame in range(4):
      write_image(tmp_path / f"walk/{video}/{frame}.png")
    (tmp_path / f"walk/{video}/fps.txt").write_text("2")
  describe(["videos"], str(tmp_path), "video_folder", "train[:50%]")
  (row,), _ = columns(capsys)
  assert (row["videos"], row["frames"], row["mean length"], row["rate"]) == ("1", "4", "2.0 s", "2/s")
  (tmp_path / "walk/a/fps.txt").unlink()
  describe(["videos"], str(tmp_path), "video_folder")
  assert "1 folders of frames do not tell their rate" in columns(capsys)[1][0]


def test_real_clips(shared_data, capsys):
  pytest.importorskip("av", reason="av is not installed: extra `video`")
  (found,) = describe(["videos"], str(shared_data / "davis"))
  assert found.name == "video_folder" and len(found.lengths) == 15 and found.lengths.sum() == 1076
  assert found.seconds == pytest.approx(1076 / 15 / found.rate)
  assert columns(capsys)[1] == ["video_folder: the rate is that of the files"]


@pytest.mark.parametrize(
  "words, options, message",
  [
    (["vidoes"], {}, "takes one word; did you mean 'videos'"),
    ([], {}, "`ssl-jax describe` takes one word"),
    (["videos"], {"name": "davs"}, "--name=davs is no data set of videos; did you mean 'davis'"),
    (["videos"], {}, r"holds no data set of videos that is known:\n  (?s:.)*video_folder: .* holds no clip"),
    (["videos"], {"name": "kitti_step"}, "kitti_step: .* holds no folder training/image_02"),
  ],
)
def test_refusals(words, options, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    describe(words, str(tmp_path), **options)
  with pytest.raises(ValueError, match="--data_dir=.*gone is not a folder"):
    describe(["videos"], str(tmp_path / "gone"))
