"""The pictures of studies: every kind is drawn, and shows its values."""

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure

from ssl_jax.view import study

NAMES = ("crop", "jitter", "blur")
PAIRS = ["+".join(names) for count in (1, 2) for names in itertools.combinations(NAMES, count)]


def rows(runs, scalars):
  """Rows whose means are 0.10, 0.11, and so on."""
  return [
    {"run": run, "scalar": scalar, "values": [mean], "mean": mean, "standard_error": None}
    for mean, (run, scalar) in zip(itertools.count(0.1, 0.01), itertools.product(runs, scalars))
  ]


@pytest.fixture
def drawn(monkeypatch):
  """The figures that were written."""
  figures, save = [], Figure.savefig
  monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1])
  return figures


@pytest.mark.parametrize("kind", ["points", "lines", "matrix"])
def test_every_kind_is_written(kind, drawn, tmp_path):
  found = {"rows": rows(PAIRS, ["probe.top1", "probe.loss"]), "picture": kind}
  study.plot_study(found, tmp_path / "study.png")
  assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG") and len(drawn) == 1
  assert [path.name for path in tmp_path.iterdir()] == ["study.png"]


def test_a_matrix_is_symmetric_with_single_transforms_on_its_diagonal(drawn, tmp_path):
  study.plot_study({"rows": rows(PAIRS, ["probe.top1"]), "picture": "matrix"}, tmp_path / "study.png")
  (axes,) = drawn[0].axes
  cells = np.asarray(axes.images[0].get_array())
  np.testing.assert_allclose(cells, [[10, 13, 14], [13, 11, 15], [14, 15, 12]])
  assert [label.get_text() for label in axes.get_xticklabels()] == list(NAMES)


def test_lines_run_over_the_scalars_that_a_run_has(drawn, tmp_path):
  some = rows(["moco", "moco:untrained"], ["stage1.top1", "stage2.top1"]) + rows(["mae"], ["knn.top1"])
  study.plot_study({"rows": some, "picture": "lines"}, tmp_path / "study.png")
  (axes,) = drawn[0].axes
  curves = [line for container in axes.containers for line in [container[0]]]
  assert [curve.get_ydata().tolist() for curve in curves] == [
    pytest.approx([10, 11]),
    pytest.approx([12, 13]),
  ]
  assert [label.get_text() for label in axes.get_xticklabels()] == ["stage1.top1", "stage2.top1"]
