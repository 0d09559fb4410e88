"use strict";
// paper: how anything is put on the page. Text from outside becomes text nodes and nothing else, wherever it goes.

const see = { views: [] };

see.h = (tag, attributes, ...children) => {
  const element = document.createElement(tag);
  see.dress(element, attributes);
  element.append(...see.flat(children));
  return element;
};

see.svg = (tag, attributes, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  see.dress(element, attributes);
  element.append(...see.flat(children));
  return element;
};

see.flat = (children) => children.flat(4).filter((child) => child !== null && child !== undefined && child !== false);

see.dress = (element, attributes) => {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
};

see.fill = (element, ...children) => element.replaceChildren(...see.flat(children));

// -- numbers

see.percent = (p) => {
  if (p === null || p === undefined) return "—";
  if (p === 0) return "0 %";
  const percent = 100 * p;
  if (percent >= 99.995) return "100 %";
  if (percent >= 10) return percent.toFixed(1) + " %";
  if (percent >= 0.1) return percent.toFixed(2) + " %";
  return percent >= 0.001 ? percent.toFixed(4) + " %" : percent.toExponential(1) + " %";
};

see.number = (x, digits = 3) => {
  if (x === null || x === undefined) return "—";
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e5 || size < 1e-3) return x.toExponential(Math.max(0, digits - 1));
  return String(Number(x.toPrecision(size >= 1000 ? 5 : digits)));
};

see.seconds = (s) => {
  if (s === null || s === undefined) return "—";
  if (Math.abs(s) >= 1) return see.number(s, 3) + " s";
  return Math.abs(s) >= 1e-3 ? see.number(1e3 * s, 3) + " ms" : see.number(1e6 * s, 3) + " µs";
};

see.scaled = (x, unit) => {
  if (x === null || x === undefined) return "—";
  const steps = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  for (const [size, letter] of steps) if (Math.abs(x) >= size) return see.number(x / size, 3) + " " + letter + unit;
  return see.number(x, 3) + " " + unit;
};

see.count = (n, one, many) => n.toLocaleString("en") + " " + (n === 1 ? one : many || one + "s");

// Where a number comes from: it stands in the recording or was computed again with the same bits, or follows from those.
see.mark = (kind, how) => {
  const letter = kind === "measured" ? "m" : "d";
  const title = kind === "measured" ? "measured: " + (how || "it was recorded, or computed again with the same bits")
    : "derived: " + (how || "it follows from measured values");
  return see.h("abbr", { class: "mk " + kind, title, "aria-label": title }, letter);
};

// -- tokens

see.shown = (text, id) => {
  if (text === null || text === undefined) return "#" + id;
  return text.replaceAll("\n", "↵").replaceAll("\t", "⇥") || "∅";
};

see.token = (text, id) => {
  const shown = see.shown(text, id);
  const body = shown.replace(/^ /, "");
  return see.h("span", { class: "token" }, shown.startsWith(" ") ? see.h("i", { "aria-hidden": "true" }, "␣") : null, body || " ");
};

see.plainToken = (text, id) => see.shown(text, id).replace(/^ /, "␣");

// -- arrays: float32 in base64

see.array = (document) => {
  if (!document) return null;
  if (document.values) return document;
  const bytes = Uint8Array.from(atob(document.float32), (letter) => letter.charCodeAt(0));
  const values = new Float32Array(bytes.buffer);
  document.values = values;
  return document;
};

see.part = (array, ...place) => {
  let start = 0, size = array.values.length;
  place.forEach((index, axis) => { size /= array.shape[axis]; start += index * size; });
  return array.values.subarray(start, start + size);
};

// -- colours and patterns

see.ink = () => {
  const style = getComputedStyle(document.documentElement);
  const names = ["paper", "sheet", "ink", "soft", "faint", "line", "hair", "brass", "brass-fill", "shared", "prompt",
    "generated", "cut", "other", "cached"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue("--" + name).trim()]));
};

see.kinds = {
  shared: { colour: "shared", pattern: "diagonal", label: "shared prefix" },
  chunk: { colour: "prompt", pattern: "dots", label: "this prompt" },
  generated: { colour: "generated", pattern: "plain", label: "generated" },
  other: { colour: "other", pattern: "rows", label: "other requests" },
  both: { colour: "brass-fill", pattern: "diagonal", label: "shared by several" },
  cached: { colour: "cached", pattern: "dots", label: "cached, held by nobody" },
  wasted: { colour: "cut", pattern: "cross", label: "held, and empty" },
  cut: { colour: "cut", pattern: "cross", label: "cut away" },
  vain: { colour: "cut", pattern: "rows", label: "guessed in vain" },
  weight: { colour: "brass-fill", pattern: "plain", label: "weight" },
  free: { colour: "hair", pattern: "plain", label: "free" },
};

const TILE = 6;

see.drawTile = (context, pattern, colour, ground) => {
  context.fillStyle = ground;
  context.fillRect(0, 0, TILE, TILE);
  context.strokeStyle = context.fillStyle = colour;
  context.lineWidth = 1.6;
  context.beginPath();
  if (pattern === "plain") context.fillRect(0, 0, TILE, TILE);
  if (pattern === "dots") { context.fillRect(0, 0, 3, 3); context.fillRect(3, 3, 3, 3); }
  if (pattern === "rows") { context.fillRect(0, 0, TILE, 2); context.fillRect(0, 3, TILE, 1); }
  if (pattern === "diagonal" || pattern === "cross") {
    for (const shift of [-TILE, 0, TILE]) { context.moveTo(shift - 1, TILE + 1); context.lineTo(shift + TILE + 1, -1); }
  }
  if (pattern === "cross") for (const shift of [-TILE, 0, TILE]) { context.moveTo(shift - 1, -1); context.lineTo(shift + TILE + 1, TILE + 1); }
  context.stroke();
};

see.pattern = (context, kind) => {
  const ink = see.ink(), how = see.kinds[kind];
  const tile = document.createElement("canvas");
  tile.width = tile.height = TILE;
  see.drawTile(tile.getContext("2d"), how.pattern, ink[how.colour], ink.sheet);
  return context.createPattern(tile, "repeat");
};

// The same patterns for SVG, defined once; url(#p-shared) fills with one.
see.patterns = () => see.svg("svg", { width: 0, height: 0, "aria-hidden": "true", class: "unseen" },
  see.svg("defs", {}, Object.entries(see.kinds).map(([name, how]) => {
    const colour = `var(--${how.colour})`;
    const line = (d) => see.svg("path", { d, stroke: colour, "stroke-width": 1.6, fill: "none" });
    const rect = (x, y, w, h) => see.svg("rect", { x, y, width: w, height: h, fill: colour });
    const up = "M-1 7L7 -1M-7 7L1 -1M5 7L13 -1", down = "M-1 -1L7 7M5 -1L13 7M-7 -1L1 7";
    const marks = { plain: [rect(0, 0, 6, 6)], dots: [rect(0, 0, 3, 3), rect(3, 3, 3, 3)], diagonal: [line(up)],
      rows: [rect(0, 0, 6, 2), rect(0, 3, 6, 1)], cross: [line(up), line(down)] };
    return see.svg("pattern", { id: "p-" + name, width: TILE, height: TILE, patternUnits: "userSpaceOnUse" },
      see.svg("rect", { width: TILE, height: TILE, fill: "var(--sheet)" }), marks[how.pattern]);
  })));

see.legend = (...kinds) => see.h("div", { class: "legend" }, kinds.map((kind) => {
  const [name, label] = Array.isArray(kind) ? kind : [kind, see.kinds[kind].label];
  return see.h("span", {}, see.svg("svg", { "aria-hidden": "true" },
    see.svg("rect", { width: 18, height: 12, fill: `url(#p-${name})`, stroke: "var(--line)" })), label);
}));

// -- canvases

see.canvas = (canvas, height) => {
  const width = Math.max(40, canvas.clientWidth || canvas.parentElement.clientWidth || 600);
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = height + "px";
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "11px " + getComputedStyle(document.body).fontFamily;
  return { context, width, height };
};

// A word beside the pointer; ``say(x, y)`` gives it or null.
see.tip = (element, say) => {
  let tip = document.querySelector(".tip");
  if (!tip) { tip = see.h("div", { class: "tip", hidden: true, role: "tooltip" }); document.body.append(tip); }
  element.addEventListener("pointermove", (event) => {
    const box = element.getBoundingClientRect();
    const text = say(event.clientX - box.left, event.clientY - box.top, box);
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    tip.style.left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8) + "px";
    tip.style.top = Math.max(4, event.clientY - tip.offsetHeight - 10) + "px";
  });
  element.addEventListener("pointerleave", () => { tip.hidden = true; });
};

see.plate = (title, note, ...children) => see.h("section", { class: "plate" }, see.h("h3", {}, title),
  note ? see.h("p", { class: "note" }, note) : null, children);

see.missing = (text) => see.h("p", { class: "missing" }, text);

see.facts = (...pairs) => see.h("dl", { class: "facts" }, pairs.filter(Boolean).map(([name, value, kind, how]) =>
  see.h("div", {}, see.h("dt", {}, name, kind ? see.mark(kind, how) : null), see.h("dd", {}, value))));
