"use strict";
// Tabs: a click or an arrow key selects a tab; the fragment of the address (#name) stores which one.
const tabs = [...document.querySelectorAll("[role=tab]")];
function choose(tab) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).hidden = !chosen;
  }
}
for (const [place, tab] of tabs.entries()) {
  tab.addEventListener("click", () => { choose(tab); history.replaceState(null, "", "#" + tab.getAttribute("aria-controls")); });
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(place + step + tabs.length) % tabs.length];
    next.focus();
    next.click();
  });
}
const stored = tabs.find((tab) => "#" + tab.getAttribute("aria-controls") === location.hash);
if (stored) choose(stored);

// Plots are drawn on a canvas, which does not inherit the colours of the page: set them here, and again
// whenever the colour scheme changes.
function paint() {
  const style = getComputedStyle(document.documentElement);
  const [ink, soft, line] = ["--ink", "--soft", "--line"].map((name) => style.getPropertyValue(name).trim());
  for (const doc of Bokeh.documents) {
    for (const model of doc._all_models.values()) {
      if (model.type === "Figure" || model.type === "Plot") model.setv({ background_fill_color: null, border_fill_color: null, outline_line_color: null });
      if (model.type.endsWith("Axis")) model.setv({ axis_label_text_color: soft, major_label_text_color: soft, axis_line_color: line, major_tick_line_color: line, minor_tick_line_color: null });
      if (model.type === "Grid") model.setv({ grid_line_color: line });
      if (model.type === "Legend") model.setv({ background_fill_color: null, label_text_color: ink, inactive_fill_color: null });
    }
  }
}
if (window.Bokeh) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  const wait = setInterval(() => { if (Bokeh.documents.length) { clearInterval(wait); paint(); } }, 20);
}
