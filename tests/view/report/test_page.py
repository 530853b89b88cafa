"""The page as text: what it says of a run, what it leaves out, what it refuses."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from ssl_jax.view import deployment
from ssl_jax.view.report import page, plots, report, streams
from ssl_jax.view.report.record import read_records
from ssl_jax.view.video_stream import MILLISECONDS
from tests.view.report.runs import HOSTILE, make_atlas, write_evaluation, write_run, write_streams

PARTS = ("run", "training", "evaluation", "neighbours", "map", "corruption", "pictures")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  return write_run(tmp_path_factory.mktemp("runs") / "first")


@pytest.fixture(scope="module")
def text(workdir):
  return report([workdir]).read_text()


def sections(text):
  return re.findall(r'<section id="(\w+)"', text)


def test_every_part_is_there_and_says_what_the_run_did(text):
  assert sections(text) == [*PARTS]
  for said in (
    "moco",
    "resnet10",
    "1.23 M",
    "60 of 60",
    "0.3333",
    "1 x cpu",
    "abc123",
    "at step 30",
    "jax 0.10.2",
    "knn, step 60",
    "<td>50.0</td>",
    "<td>0.7000</td>",
  ):
    assert said in text, said


def test_it_asks_for_nothing_outside_itself_and_is_small(text, workdir):
  assert not re.findall(
    r'(?:src|href)="(?!data:|#)[^"@]', re.sub(r"<script>.*?</script>", "", text, flags=re.S)
  )
  assert "default-src 'none'" in text and (workdir / "report.html").stat().st_size < page.LIMIT


def test_names_are_escaped_wherever_they_stand(text):
  assert HOSTILE not in text
  assert "&lt;script&gt;window.broken = 1&lt;/script&gt;" in text


def test_what_a_run_lacks_is_left_out(tmp_path):
  bare = write_run(tmp_path / "bare", evaluated=False)
  assert sections(report([bare]).read_text()) == ["run", "training"]
  (bare / "metrics.jsonl").unlink()
  text = report([bare]).read_text()
  assert sections(text) == ["run"] and "Bokeh" not in text.replace("window.Bokeh", "").replace(
    "Bokeh.documents", ""
  )


def test_runs_stand_side_by_side_under_names_that_tell_them_apart(workdir, tmp_path):
  other = write_run(tmp_path / "other" / "first", learning_rate=0.1, evaluated=False)
  text = report([workdir, other], tmp_path / "both.html").read_text()
  names = [record.name for record in read_records([workdir, other])]
  assert names == [f"{workdir.parent.name}/first", "other/first"] and all(
    f"<h2>{name}</h2>" in text for name in names
  )
  assert "config.optimizer.learning_rate" in text and "0.05" in text and "0.1" in text


@pytest.mark.parametrize(
  "make, message",
  [
    (lambda path: [path / "nowhere"], "there is no folder .*nowhere"),
    (lambda path: [path], "holds no run"),
    (lambda path: [write_run(path / "run"), path / "run"], "is named twice"),
  ],
)
def test_a_folder_without_a_run_is_refused(make, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    report(make(tmp_path))


def test_an_output_that_is_no_page_is_refused(workdir):
  with pytest.raises(ValueError, match=r"--output=page.pdf is not a .html file"):
    report([workdir], "page.pdf")


def test_a_large_page_gets_smaller_pictures_and_one_that_stays_large_is_refused(
  workdir, monkeypatch, tmp_path
):
  tried = []
  monkeypatch.setattr(page, "_render", lambda records, studied, width: tried.append(width) or "x" * width)
  monkeypatch.setattr(page, "LIMIT", 1000)
  assert report([workdir], tmp_path / "page.html").stat().st_size == 750 and tried == [1600, 1100, 750]
  monkeypatch.setattr(page, "LIMIT", 100)
  with pytest.raises(
    ValueError, match="the report about 1 runs is larger than 0 MB even with small pictures; name fewer"
  ):
    report([workdir], tmp_path / "page.html")


def test_a_half_written_row_is_no_obstacle(tmp_path):
  run = write_run(tmp_path / "run", evaluated=False)
  with (run / "metrics.jsonl").open("a") as file:
    file.write('{"step": 70, "lo')
  assert len(read_records([run])[0].rows) == 6


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_a_damaged_evaluation_is_named_with_the_cure(suffix, tmp_path):
  run = write_run(tmp_path / "run")
  file = sorted((run / "evaluations").rglob(f"*.{suffix}"))[0]
  file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
  with pytest.raises(
    ValueError, match=rf"{file.name} is damaged or incomplete .*; delete it and evaluate again"
  ):
    report([run])


def test_long_curves_are_thinned_and_keep_their_end():
  rows = [{"step": i, "epoch": i / 10, "loss": float(i)} for i in range(1, 5001)]
  kept = plots._columns(rows, ["loss", "accuracy"])
  assert len(kept["step"]) <= plots.POINTS and kept["loss"][-1] == 5000 and np.isnan(kept["accuracy"]).all()


def test_figures_of_one_kind_share_a_plot(workdir):
  assert [*plots.curves(read_records([workdir]))] == [
    "loss",
    "accuracy",
    "learning rate",
    "images per second",
    "waiting fraction",
    "gradient norm",
  ]


def test_the_map_separates_what_features_separate():
  seen = make_atlas(("a", "b", "c"))
  flat = plots._flat(seen["components"])
  distance = np.linalg.norm(flat[:, None] - flat[None], axis=-1) + np.diag(np.full(len(flat), np.inf))
  assert (seen["label"][distance.argmin(1)] == seen["label"]).mean() > 0.95


def test_bars_have_the_error_of_the_spread_and_a_mean_without_clean(workdir):
  evaluation = next(e for e in read_records([workdir])[0].evaluations if e.task == "ttt")
  without, learned = (renderer.data_source.data for renderer in plots.bars(evaluation).renderers)
  assert list(learned["row"]) == ["clean", "fog", "snow", "mean over corruptions"]
  np.testing.assert_allclose(learned["error"], [10, 40, 50, 45])
  np.testing.assert_allclose(without["error"], [15, 45, 55, 50])
  np.testing.assert_allclose(without["spread"][1], 100 * np.sqrt(0.45 * 0.55 / 89))
  np.testing.assert_allclose(learned["high"] - learned["error"], [2, 2, 2, 1.5])


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
  return write_streams(write_run(tmp_path_factory.mktemp("runs") / "streamed", evaluated=False))


def test_streams_are_shown_as_a_film_a_strip_and_scores_over_time(streamed, monkeypatch):
  text = report([streamed]).read_text()
  assert sections(text) == ["run", "training", "evaluation", "streams"]
  for said in ("The first video: truth, frozen, adapted", "Frames of the first video", "over time"):
    assert text.count(said) >= 3, said  # of each window
  evaluation = read_records([streamed])[0].evaluations[0]
  monkeypatch.setattr(streams, "FRAMES", 10)
  monkeypatch.setattr(streams, "FEWEST", 2)
  embedded = [base64.b64decode(uri.partition(",")[2]) for _, uri in streams.pictures(evaluation, 300, 2)]
  shown = [Image.open(io.BytesIO(image)) for image in embedded]
  assert [image.width for image in shown] == [150, 300, 300]
  # Every second of nine frames, and the film is as fast as the GIF was.
  assert [getattr(image, "n_frames", 1) for image in shown] == [5, 1, 1]
  shown[0].load()
  assert shown[0].info["duration"] == 2 * MILLISECONDS


def test_the_episodes_of_a_policy_are_shown_as_a_film_with_the_arms_named(tmp_path):
  folder = write_run(tmp_path / "policy", evaluated=False)
  arms = ["frozen", "adapted"]
  write_evaluation(folder, "deployment", "policy", {"score": 0.5}, {"arms": arms})
  film = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1) * np.full((1, 8, 8, 3), 40, np.uint8)
  at = folder / "evaluations" / "step60" / "deployment-policy"
  deployment.write_film(at, {"train": dict.fromkeys(arms, film)})
  cell = {arm: {"return": [500.0, 450.0, 550.0]} for arm in arms}
  deployment.plot_cells(f"{at}.png", {"train": cell}, title="a policy")
  text = report([folder]).read_text()
  assert sections(text) == ["run", "training", "evaluation", "streams"]
  captions = [caption for caption, _ in streams.pictures(read_records([folder])[0].evaluations[0], 300)]
  assert sorted(captions) == [
    "Frames of the first episode of each world: frozen, adapted",
    "Returns and errors with intervals of 95%",
    "The first episode of each world: frozen, adapted",
  ]


def test_errors_are_drawn_against_the_window_all_frames_last(streamed, tmp_path):
  ((title, plot),) = streams.windows(read_records([streamed])).items()
  assert title == "streamed: moco, objective own, carried" and plot.x_range.factors == ["1", "4", "all"]
  adapted = plot.renderers[0].data_source.data
  np.testing.assert_allclose(adapted["error"], [50, 40, 50])
  np.testing.assert_allclose(adapted["high"] - adapted["error"], 2)
  assert plot.y_range.start < 38 and plot.y_range.end > 56
  one = write_streams(write_run(tmp_path / "one", evaluated=False), windows=(4,))
  assert streams.windows(read_records([one])) == {}
  assert "error against the window" not in report([one]).read_text()
