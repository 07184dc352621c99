"use strict";
// The page can be read without this script. It adds tabs of explainers, maps of words, and curves that stand out.

const KEYS = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1};

// Let the arrow keys, Home and End move the focus in a row of elements, of which only one is in the tab order.
function rove(elements, enter) {
  elements.forEach((element, place) => {
    element.tabIndex = place === 0 ? 0 : -1;
    element.addEventListener("keydown", (event) => {
      const ends = {Home: 0, End: elements.length - 1};
      const next = event.key in KEYS ? (place + KEYS[event.key] + elements.length) % elements.length : ends[event.key];
      if (next === undefined) return;
      event.preventDefault();
      elements.forEach((each, number) => { each.tabIndex = number === next ? 0 : -1; });
      elements[next].focus();
      enter(elements[next]);
    });
  });
}

// Show one explainer at a time, or all of them next to each other.
function addTabs(box) {
  const panels = [...box.querySelectorAll(":scope > .tab")];
  if (panels.length < 2) return;
  const list = document.createElement("div");
  list.setAttribute("role", "tablist");
  list.setAttribute("aria-label", "Explainers of: " + box.dataset.title);
  const all = document.createElement("div");
  all.className = "panels-of-tabs";
  all.id = box.dataset.id + "-panels";
  all.setAttribute("role", "tabpanel");
  all.append(...panels);
  const buttons = ["all", ...panels.map((panel) => panel.querySelector("h4").textContent)].map((name, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.id = box.dataset.id + "-tab-" + place;
    button.setAttribute("role", "tab");
    button.setAttribute("aria-controls", all.id);
    return button;
  });
  const choose = (chosen) => {
    const place = buttons.indexOf(chosen);
    buttons.forEach((button) => {
      button.setAttribute("aria-selected", String(button === chosen));
      button.tabIndex = button === chosen ? 0 : -1;
    });
    panels.forEach((panel, number) => { panel.hidden = place > 0 && number !== place - 1; });
    all.classList.toggle("one", place > 0);
    all.setAttribute("aria-labelledby", chosen.id);
  };
  list.append(...buttons);
  box.append(list, all);
  rove(buttons, choose);
  buttons.forEach((button) => button.addEventListener("click", () => choose(button)));
  choose(buttons[0]);
}

// Show the map of a word while the pointer or the focus is on it.
function addWordMaps(tab) {
  const words = [...tab.querySelectorAll(".word[data-heat]")];
  if (!words.length) return;
  const map = tab.querySelector(".map"), heat = map.querySelector(".heat"), shows = tab.querySelector(".shows");
  const row = tab.querySelector(".words"), about = map.getAttribute("aria-label");
  const whole = heat.getAttribute("href"), said = shows.textContent;
  const lines = [...map.querySelectorAll(".evidence")], known = lines[0].getAttribute("d");
  const show = (href, label, description, outline) => {
    if (href) heat.setAttribute("href", href); else heat.removeAttribute("href");
    shows.textContent = label;
    map.setAttribute("aria-label", description);
    lines.forEach((line) => line.setAttribute("d", outline || known));
  };
  const enter = (word) => {
    words.forEach((each) => each.classList.toggle("shown", each === word));
    show(word.dataset.heat, word.dataset.label, row.dataset.name + ": " + word.dataset.label, word.dataset.outline);
  };
  const leave = () => {
    words.forEach((each) => each.classList.remove("shown"));
    show(whole, said, about);
  };
  row.setAttribute("role", "group");
  row.setAttribute("aria-label", "Words; each shows its map");
  shows.setAttribute("aria-live", "polite");
  rove(words, () => {});
  words.forEach((word) => {
    word.setAttribute("role", "button");
    word.addEventListener("pointerenter", () => enter(word));
    word.addEventListener("focus", () => enter(word));
    word.addEventListener("pointerleave", () => {
      const focused = words.find((each) => each === document.activeElement);
      if (focused) enter(focused); else leave();
    });
    word.addEventListener("blur", leave);
    word.addEventListener("keydown", (event) => { if (event.key === "Escape") word.blur(); });
  });
}

// Let a curve stand out while the pointer or the focus is on its name.
function addHighlights(chart) {
  const names = [...chart.querySelectorAll(".legend li")];
  const mark = (key) => {
    chart.querySelectorAll("[data-series]").forEach((each) => {
      each.classList.toggle("dim", key !== null && each.dataset.series !== key);
      each.classList.toggle("lit", each.dataset.series === key);
    });
  };
  if (names.length < 2) return;
  rove(names, () => {});
  names.forEach((name) => {
    name.addEventListener("pointerenter", () => mark(name.dataset.series));
    name.addEventListener("pointerleave", () => mark(null));
    name.addEventListener("focus", () => mark(name.dataset.series));
    name.addEventListener("blur", () => mark(null));
  });
}

document.querySelectorAll(".tabs").forEach(addTabs);
document.querySelectorAll(".tab").forEach(addWordMaps);
document.querySelectorAll(".chart").forEach(addHighlights);
