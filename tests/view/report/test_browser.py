"""The page in a real browser, from a file, without a network."""

import pathlib
import shutil

import pytest

from ssl_jax.view.report import report
from tests.view.report.runs import HOSTILE, write_run, write_streams

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: extra `test`")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
]
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
  with playwright.sync_playwright() as driver:
    path = next(filter(None, map(shutil.which, BROWSERS)), None) or driver.chromium.executable_path
    if not pathlib.Path(path).exists():
      pytest.skip("no Chromium on this machine")
    found = driver.chromium.launch(executable_path=path, args=QUIET)
    yield found
    found.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
  return report([write_streams(write_run(tmp_path_factory.mktemp("runs") / "run"))]).as_uri()


class Visit:
  """A page and what went wrong on it."""

  def __init__(self, browser, address: str, **options):
    self.page = browser.new_page(**options)
    self.wrong, self.asked = [], []
    self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
    self.page.on(
      "console",
      lambda message: self.wrong.append(message.text) if message.type in ("error", "warning") else None,
    )
    self.page.on("request", lambda request: self.asked.append(request.url))
    self.page.goto(address)
    self.page.wait_for_function("Bokeh.documents.length > 0")

  def choose(self, name: str):
    """Opens a tab and waits for its plots."""
    self.page.get_by_role("tab", name=name).click()
    panel = self.page.get_by_role("tabpanel")
    for canvas in panel.locator("canvas").all():
      canvas.wait_for(state="visible")
    return panel

  def scrolls_sideways(self) -> bool:
    return self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")

  def point_at(self, plot: int, x: float, y: float) -> None:
    """Moves the pointer to a place given in a plot's own coordinates."""
    place = self.page.evaluate(
      """([number, x, y]) => {
      const plot = Bokeh.documents[0].roots()[number], view = Bokeh.index.get_by_id(plot.id);
      const box = view.el.getBoundingClientRect();
      return [box.x + view.frame.x_scale.compute(x), box.y + view.frame.y_scale.compute(y)];
    }""",
      [plot, x, y],
    )
    self.page.mouse.move(*place)


@pytest.fixture
def visit(browser, address):
  opened = []

  def open_page(**options) -> Visit:
    opened.append(Visit(browser, address, **options))
    return opened[-1]

  yield open_page
  for one in opened:
    assert (
      not one.wrong and [url for url in one.asked if not url.startswith(("file:", "data:", "blob:"))] == []
    )
    one.page.close()


def test_each_tab_shows_its_part_alone_and_the_address_remembers_it(visit):
  seen = visit()
  tabs = seen.page.get_by_role("tab").all_inner_texts()
  assert tabs == ["Run", "Training", "Evaluation", "Neighbours", "Map", "Corruption", "Streams", "Pictures"]
  for name in tabs:
    panel = seen.choose(name)
    assert panel.count() == 1 and panel.bounding_box()["height"] > 50
  seen.page.reload()
  assert seen.page.get_by_role("tabpanel").get_attribute("id") == "pictures"
  seen.page.get_by_role("tab", name="Pictures").press("ArrowRight")
  assert seen.page.get_by_role("tabpanel").get_attribute("id") == "run"


def test_a_pointer_over_a_curve_tells_its_value(visit):
  seen = visit()
  plot = seen.choose("Training").locator(".bk-Figure").first
  assert plot.bounding_box()["width"] > 600  # as wide as the page, though drawn while hidden
  seen.point_at(0, 30.0, 1.5)
  for said in ("0.6667", "3.00"):  # the loss of that step, its epoch
    seen.page.locator(".bk-Tooltip").get_by_text(said, exact=True).first.wait_for(timeout=5000)


def test_a_pointer_over_the_map_shows_the_image_and_names_are_text(visit):
  seen = visit()
  seen.choose("Map")
  number = seen.page.evaluate(
    "Bokeh.documents[0].roots().findIndex(plot => plot.renderers[0].data_source.data.image)"
  )
  data = f"Bokeh.documents[0].roots()[{number}].renderers[0].data_source.data"
  for row, name in ((0, "cat"), (1, HOSTILE), (2, "dog")):
    seen.point_at(number, *seen.page.evaluate(f"[{data}.x0[{row}], {data}.y0[{row}]]"))
    tooltip = seen.page.locator(".bk-Tooltip")
    tooltip.locator("b", has_text=name).first.wait_for(timeout=5000)
    assert tooltip.locator("img").first.evaluate("image => image.naturalWidth") == 16
    assert tooltip.get_by_text(f"k-NN predicts {name}").first.is_visible()
  assert seen.page.evaluate("window.broken") is None


def test_the_film_of_a_stream_plays(visit):
  seen = visit()
  panel = seen.choose("Streams")
  film = panel.locator("img").first
  assert film.evaluate("image => image.naturalWidth") > 100
  shots = []
  for _ in range(4):
    shots.append(film.screenshot())
    seen.page.wait_for_timeout(400)
  assert len(set(shots)) > 1


def test_a_phone_scrolls_down_only(visit):
  seen = visit(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
  for name in seen.page.get_by_role("tab").all_inner_texts():
    seen.choose(name)
    assert not seen.scrolls_sideways(), name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_plots_are_readable_in_both_schemes(visit, scheme):
  seen = visit(color_scheme=scheme)
  ground, ink = seen.page.evaluate(
    "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
  )
  dark = [sum(map(int, colour.strip("rgb()").split(","))) < 382 for colour in (ground, ink)]
  assert dark == ([True, False] if scheme == "dark" else [False, True])
  painted = seen.page.evaluate(
    """[...Bokeh.documents[0]._all_models.values()].filter(m => m.type === "LinearAxis")
      .map(m => String(m.major_label_text_color.value ?? m.major_label_text_color))"""
  )
  soft = seen.page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--soft').trim()")
  assert painted and set(painted) == {soft}
