// What can be checked of a page without looking at it: controls and pictures without a name, ids that stand twice, and
// text whose contrast with what is behind it is below 4.5 (3 when it is large), as WCAG 2.2 computes it.
() => {
  const isHidden = (e) => e.closest("[hidden], [aria-hidden=true], .unseen, .tip, dialog:not([open])") !== null;
  const named = (e) => e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.textContent.trim() || (e.labels && e.labels.length);
  const controls = "button, input, select, canvas, dialog[open], [role=slider], [role=tab], [role=img], [role=tablist]";
  const nameless = [...document.querySelectorAll(controls)].filter((e) => e.getClientRects().length && !isHidden(e) && !named(e));

  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    paint.clearRect(0, 0, 1, 1);
    paint.fillStyle = colour;
    paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data].map((x) => x / 255);
  };
  const light = (c) => c.slice(0, 3).map((x) => (x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4))
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  const over = (top, under) => top.slice(0, 3).map((x, i) => x * top[3] + under[i] * (1 - top[3])).concat([1]);
  const ground = (e) => {
    const own = rgba(getComputedStyle(e).backgroundColor);
    return own[3] === 1 ? own : e.parentElement ? over(own, ground(e.parentElement)) : [1, 1, 1, 1];
  };
  const faint = new Set(), walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walk.nextNode());) {
    const e = node.parentElement, style = getComputedStyle(e);
    if (!node.textContent.trim() || !e.getClientRects().length || isHidden(e) || e.closest("script, style, title, option, :disabled")) continue;
    const isDrawn = e.namespaceURI.endsWith("svg"), under = ground(isDrawn ? e.closest("svg").parentElement : e);
    let opacity = 1;
    for (let up = e; up; up = up.parentElement) opacity *= Number(getComputedStyle(up).opacity);
    const colour = rgba(isDrawn ? style.fill : style.color);
    colour[3] *= opacity;
    const a = light(over(colour, under)), b = light(under), ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize), isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (isLarge ? 3 : 4.5)) faint.add(`${ratio.toFixed(2)}: ${node.textContent.trim().slice(0, 40)} (${e.tagName} ${e.className.baseVal ?? e.className})`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  return { nameless: nameless.map((e) => e.outerHTML.slice(0, 160)), faint: [...faint], twice: ids.filter((id, i) => ids.indexOf(id) !== i) };
}
