"""Checks of a page in a browser: whether all of its text can be read in the window."""

from __future__ import annotations

from typing import Any

#: Texts whose contrast to their background is lower than WCAG 2.1 allows for small text, and elements that reach beyond
#: the window and do not scroll in a box of their own.
FAULTS = """() => {
  const seen = (e) => e.getClientRects().length && e.checkVisibility({opacityProperty: true, visibilityProperty: true});
  const boxed = (e) => {
    for (let box = e.parentElement; box; box = box.parentElement)
      if (getComputedStyle(box).overflowX !== 'visible' && box !== document.body) return true;
    return getComputedStyle(e).position === 'fixed';
  };
  const faults = new Set(), width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) faults.add('the page is wider than the window');
  for (const e of document.querySelectorAll('body *')) {
    const edge = e.getBoundingClientRect().right;
    if (seen(e) && edge > width + 1 && !e.closest('svg') && !boxed(e)) faults.add(`${e.tagName} ends at ${edge}`);
  }
  for (const image of document.images) if (image.complete && !image.naturalWidth) faults.add(`no image: ${image.src}`);
  const numbers = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = ([r, g, b, a], [x, y, z]) => [r * a + x * (1 - a), g * a + y * (1 - a), b * a + z * (1 - a)];
  const luminance = (colour) => {
    const [r, g, b] = colour.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode.textContent.trim(), e = texts.currentNode.parentElement;
    if (!text || !seen(e) || e.closest('svg, math, [aria-pressed=true], :disabled')) continue;
    const layers = [];
    let picture = false;
    for (let box = e; box; box = box.parentElement) {
      const style = getComputedStyle(box), colour = numbers(style.backgroundColor);
      picture ||= style.backgroundImage !== 'none';
      layers.push(colour);
      if (picture || colour[3] === 1) break;
    }
    if (picture) continue;
    const ground = layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
    const ink = over(numbers(getComputedStyle(e).color), ground);
    const [low, high] = [luminance(ink), luminance(ground)].sort((a, b) => a - b);
    const ratio = (high / low).toFixed(2);
    if (ratio < 4.5) faults.add(`contrast ${ratio} of ${e.tagName}.${e.className}: ${text.slice(0, 40)}`);
  }
  return [...faults];
}"""


def faults(page: Any) -> list[str]:
    """Return what cannot be read on an open page: low contrast, text beyond the window, missing images."""
    found: list[str] = page.evaluate(FAULTS)
    return found
