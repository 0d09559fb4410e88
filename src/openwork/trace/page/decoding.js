"use strict";
// 1 · The decoding phase: a token enters, attends to what is kept, passes the layers, and becomes a distribution.

(() => {
  const { h, svg } = see;
  const W = 1180, H = 520, KEYS = { x: 150, y: 128, width: 700 }, LINE = { x: 176, width: 640, y: 292 };
  const BINS = 350;

  const text = (x, y, words, more = {}) => svg("text", { x, y, ...more }, words);
  const cut = (words, most) => (words.length > most ? words.slice(0, most - 1) + "…" : words);

  // Positions in at most BINS groups, each with its greatest weight.
  const bins = (weights, count) => {
    const size = Math.ceil(count / BINS), found = [];
    for (let first = 0; first < count; first += size) {
      const end = Math.min(count, first + size);
      let weight = 0, best = first;
      for (let p = first; weights && p < end; p++) if (weights[p] > weight) { weight = weights[p]; best = p; }
      found.push({ first, end, weight, best });
    }
    return found;
  };

  const keys = (cursor, weights) => {
    const count = cursor.position + 1, groups = bins(weights, count);
    const step = Math.min(18, KEYS.width / groups.length), high = Math.max(...groups.map((g) => g.weight), 1e-9);
    const x = (index) => KEYS.x + index * step;
    const cells = groups.map((group, index) => svg("g", {},
      svg("title", {}, group.end - group.first === 1
        ? `${see.plainToken(cursor.text(group.best), cursor.id(group.best))} · position ${group.best} · weight ${see.percent(group.weight)}`
        : `positions ${group.first} to ${group.end - 1} · greatest weight ${see.percent(group.weight)} at ${group.best}`),
      svg("rect", { x: x(index), y: KEYS.y - 92 * group.weight / high, width: Math.max(0.8, step - 1), height: 92 * group.weight / high, fill: "url(#p-weight)" }),
      svg("rect", { x: x(index), y: KEYS.y + 2, width: Math.max(0.8, step - (step > 3 ? 1 : 0)), height: 15, fill: `url(#p-${cursor.kind(group.best)})` })));
    const top = groups.map((group, index) => ({ ...group, x: x(index) + step / 2 }))
      .filter((g) => g.weight > 0).sort((a, b) => b.weight - a.weight).slice(0, 8);
    const named = [];
    for (const each of top) if (named.every((other) => Math.abs(other.x - each.x) > 58) && named.length < 5) named.push(each);
    return { cells, top, end: x(groups.length), high,
      labels: named.map((each) => text(each.x, KEYS.y - 98 * each.weight / high - 3, cut(see.plainToken(cursor.text(each.best), cursor.id(each.best)), 12),
        { class: "serif", "text-anchor": "middle", "font-size": 13 })) };
  };

  // A wheel with a tooth for each head; the chosen head's is long.
  const wheel = (x, y, radius, teeth, chosen, isOn) => {
    const marks = [];
    const shown = Math.min(teeth, 40);
    for (let i = 0; i < shown; i++) {
      const turn = 2 * Math.PI * i / shown - Math.PI / 2, isChosen = isOn && i === chosen;
      const out = radius + (isChosen ? 9 : 4);
      marks.push(svg("line", { x1: x + radius * Math.cos(turn), y1: y + radius * Math.sin(turn), x2: x + out * Math.cos(turn), y2: y + out * Math.sin(turn),
        stroke: isChosen ? "var(--brass)" : isOn ? "var(--ink)" : "var(--faint)", "stroke-width": isChosen ? 3 : 1.2 }));
    }
    return svg("g", {}, marks, svg("circle", { cx: x, cy: y, r: radius, fill: "var(--sheet)", stroke: isOn ? "var(--ink)" : "var(--faint)", "stroke-width": isOn ? 1.6 : 1 }));
  };

  const movement = (cursor, row, layers, heads) => {
    const gap = LINE.width / layers, radius = Math.max(2.5, Math.min(15, gap * 0.26)), parts = [];
    parts.push(svg("line", { x1: LINE.x - 30, x2: LINE.x + LINE.width + 24, y1: LINE.y, y2: LINE.y, class: "ink", "stroke-width": 1.4 }));
    for (let l = 0; l < layers; l++) {
      const x = LINE.x + gap * (l + 0.5), isOn = l === cursor.layer, colour = isOn ? "var(--ink)" : "var(--faint)";
      const a = x - gap * 0.17, f = x + gap * 0.2;
      parts.push(svg("g", { role: "button", style: { cursor: "pointer" }, onclick: () => see.cursor.set({ layer: l }) },
        svg("title", {}, `layer ${l}: attention with ${heads} heads, then the feed-forward network`),
        svg("rect", { x: x - gap / 2, y: LINE.y - 58, width: gap, height: 128, fill: isOn ? "var(--shade)" : "transparent" }),
        svg("path", { d: `M${a} ${LINE.y}V${LINE.y - 34 + radius}M${f} ${LINE.y}V${LINE.y + 36 - radius}`, stroke: colour, fill: "none" }),
        wheel(a, LINE.y - 34, radius, heads, cursor.head, isOn),
        svg("circle", { cx: f, cy: LINE.y + 36, r: radius, fill: "var(--sheet)", stroke: colour, "stroke-width": isOn ? 1.6 : 1 }),
        svg("circle", { cx: f, cy: LINE.y + 36, r: radius * 0.45, fill: "none", stroke: colour }),
        svg("circle", { cx: a, cy: LINE.y, r: 2.6, fill: colour }), svg("circle", { cx: f, cy: LINE.y, r: 2.6, fill: colour }),
        layers <= 16 || l % 4 === 0 || isOn ? text(x, LINE.y + 84, String(l), { class: "mono soft", "text-anchor": "middle", "font-size": 11 }) : null));
    }
    parts.push(text(LINE.x - 34, LINE.y + 84, "layer", { class: "soft", "text-anchor": "end" }));
    if (row) {
      const norms = row.residual_norms, high = Math.max(...norms);
      const point = (i) => [LINE.x + gap * i, LINE.y + 132 - 30 * norms[i] / high];
      parts.push(svg("polyline", { points: norms.map((_, i) => point(i).join(",")).join(" "), stroke: "var(--brass)", fill: "none", "stroke-width": 1.6 }),
        norms.map((norm, i) => svg("circle", { cx: point(i)[0], cy: point(i)[1], r: layers > 40 ? 1 : 2.2, fill: "var(--brass)" }, svg("title", {}, "rms " + see.number(norm)))),
        text(LINE.x - 34, LINE.y + 124, "size of x", { class: "soft", "text-anchor": "end" }),
        text(LINE.x + LINE.width + 10, LINE.y + 106, see.number(norms[layers]) + " rms", { class: "mono soft", "font-size": 11 }));
      const every = Math.ceil(layers / 9);
      parts.push(text(LINE.x - 34, LINE.y + 164, "would say", { class: "soft", "text-anchor": "end" }));
      row.lens.forEach((each, i) => {
        if (i === 0 || (i % every && i !== layers) || !each.length) return;
        parts.push(text(LINE.x + gap * i - gap / 2, LINE.y + 164, cut(see.plainToken(each[0].text, each[0].id), 11), { class: "serif", "text-anchor": "middle", "font-size": 13.5 },),
          text(LINE.x + gap * i - gap / 2, LINE.y + 179, see.percent(Math.exp(each[0].logprob)), { class: "mono soft", "text-anchor": "middle", "font-size": 10 }));
      });
    }
    return { parts, at: LINE.x + gap * (cursor.layer + 0.5) - gap * 0.17, top: LINE.y - 34 - radius - 10 };
  };

  const small = (words) => svg("tspan", { dy: 3, "font-size": 10 }, words);

  const outcome = (cursor, row) => {
    const x = 900, parts = [
      svg("path", { d: `M${LINE.x + LINE.width + 24} ${LINE.y}H872`, class: "ink", "stroke-width": 1.4, "marker-end": "url(#arrow)" }),
      text(x, 44, "linear map · softmax", { "font-weight": 600 }), 
      svg("text", { x, y: 64, class: "soft serif", "font-size": 15 }, "Pr( y", small("i"), svg("tspan", { dy: -3 }, " | x, y"), small("<i"), svg("tspan", { dy: -3 }, " )"))];
    if (!row) return parts;
    const shown = row.top.slice(0, 9), chosen = row.top.find((t) => t.id === row.next);
    if (chosen && !shown.includes(chosen)) shown[8] = chosen;
    const high = Math.max(...shown.map((t) => Math.exp(t.logprob)));
    shown.forEach((token, i) => {
      const y = 84 + i * 30, p = Math.exp(token.logprob), isChosen = token.id === row.next;
      if (isChosen) parts.push(svg("rect", { x: x - 12, y: y - 5, width: 286, height: 27, fill: "var(--shade)" }), svg("rect", { x: x - 12, y: y - 5, width: 3, height: 27, fill: "var(--brass)" }));
      parts.push(text(x + 82, y + 13, cut(see.plainToken(token.text, token.id), 11), { class: "serif", "text-anchor": "end", "font-size": 15, "font-weight": isChosen ? 600 : 400 }),
        svg("rect", { x: x + 92, y: y + 1, width: Math.max(1, 112 * p / high), height: 15, fill: token.cut ? "url(#p-cut)" : "url(#p-weight)" }),
        text(x + 98 + Math.max(1, 112 * p / high), y + 13, see.percent(p), { class: "mono", "font-size": 11 }));
    });
    parts.push(text(x + 92, 84 + shown.length * 30 + 12, `and ${see.percent(Math.max(0, 1 - shown.reduce((sum, t) => sum + Math.exp(t.logprob), 0)))} for all others`, { class: "soft", "font-size": 11 }));
    return parts;
  };

  const card = (x, y, words, above, below) => svg("g", {},
    svg("rect", { x, y, width: 118, height: 50, rx: 3, fill: "var(--sheet)", stroke: "var(--ink)", "stroke-width": 1.3 }),
    text(x + 59, y + 32, cut(words, 12), { class: "serif", "text-anchor": "middle", "font-size": 19 }),
    text(x + 59, y - 8, above, { class: "soft", "text-anchor": "middle" }),
    text(x + 59, y + 66, below, { class: "soft", "text-anchor": "middle" }));

  const drawing = (cursor, row, weights, shape) => {
    const strip = keys(cursor, weights), machine = movement(cursor, row, shape.layers, shape.heads);
    const next = row && row.next !== null ? cursor.position + 1 : null;
    const arcs = strip.top.map((each) => svg("path", {
      d: `M${machine.at} ${machine.top}C${machine.at} ${machine.top - 36} ${each.x} ${KEYS.y + 70} ${each.x} ${KEYS.y + 20}`,
      fill: "none", stroke: "var(--brass)", "stroke-opacity": 0.35 + 0.65 * each.weight / strip.high, "stroke-width": 0.6 + 5 * each.weight }));
    return svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "wide", role: "img", "aria-label": "The token, the keys it attends to, the layers, and the distribution that comes out" },
      svg("defs", {}, svg("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto" }, svg("path", { d: "M0 0L8 4L0 8z", fill: "var(--ink)" }))),
      text(KEYS.x - 12, KEYS.y - 30, "weight of", { class: "soft", "text-anchor": "end" }), text(KEYS.x - 12, KEYS.y - 15, `head ${cursor.head}, layer ${cursor.layer}`, { class: "soft", "text-anchor": "end" }),
      text(KEYS.x - 12, KEYS.y + 14, "keys, values", { class: "soft", "text-anchor": "end" }),
      strip.cells, arcs, strip.labels,
      text(Math.min(strip.end + 6, KEYS.x + KEYS.width - 30), KEYS.y + 14, `${cursor.position + 1}`, { class: "mono soft", "font-size": 11 }),
      machine.parts, outcome(cursor, row),
      card(10, LINE.y - 25, see.plainToken(cursor.text(cursor.position), cursor.id(cursor.position)), cursor.step > 0 ? "chosen before" : "from the prompt", `position ${cursor.position}`),
      svg("path", { d: `M128 ${LINE.y}H${LINE.x - 32}`, class: "ink", "stroke-width": 1.4 }),
      next === null ? null : [
        card(990, 410, see.plainToken(cursor.text(next), cursor.id(next)), row.next_is === "chosen" ? "chosen" : "given by the prompt", `position ${next}`),
        svg("path", { d: `M1049 378V392`, class: "ink", "marker-end": "url(#arrow)" }),
        svg("path", { d: `M1049 484V508H69V${LINE.y + 48}`, class: "ink flow", stroke: "var(--soft)", "marker-end": "url(#arrow)" }),
        text(560, 503, "and enters next", { class: "soft", "text-anchor": "middle" })]);
  };

  const counted = (cursor) => {
    const counts = { shared: 0, chunk: 0, generated: 0 };
    for (const each of cursor.sources) counts[each.kind] += Math.max(0, Math.min(each.end, cursor.position + 1) - each.first);
    return counts;
  };

  const facts = (cursor, row) => {
    const found = cursor.engineStep(cursor.position);
    return see.facts(
      row && ["entropy", see.number(row.entropy) + " nats", "derived", "of the whole distribution"],
      row && ["margin", row.margin === null ? "—" : see.number(row.margin) + " nats", "derived", "between the two likeliest tokens"],
      row && ["hash of the row", h("span", {}, (row.hash || row.hash_served || "—").slice(0, 8), " ", see.served(row)), "measured"],
      found && ["engine step", h("span", {}, String(found.step.number), h("small", {}, ` ${see.count(found.step.rows, "row")} of ${see.count(found.step.sequences, "sequence")}`)), "measured"],
      found && ["took", see.seconds(found.step.elapsed_s), "measured", "seconds of the runner for the whole step"],
      ["rows of this request", found ? String(found.step.own_rows) : "—", "measured"]);
  };

  see.views.push({
    key: "decoding", title: "The decoding phase",
    build(root) {
      const figure = h("figure", { class: "diagram", tabindex: 0, "aria-label": "the diagram" }), under = h("div", {}), guessed = h("div", {});
      root.append(h("div", { class: "plates" }, h("section", { class: "plate" }, figure,
        see.legend("shared", "chunk", "generated", ["weight", "attention, probability"], "cut")), guessed, see.plate("This step", "", under)));
      return {
        async draw(cursor, isCurrent) {
          const counts = counted(cursor);
          const [row, layer] = await Promise.all([see.tryGet(`row/${cursor.sequence}/${cursor.position}`), see.tryGet(`layer/${cursor.sequence}/${cursor.position}/${cursor.layer}`)]);
          if (!isCurrent()) return;
          const weights = layer.value ? see.part(see.array(layer.value.weights), cursor.head) : null;
          const shape = cursor.shape || { layers: 1, heads: 1 };
          const isPrompt = cursor.step < 0;
          see.caption(isPrompt
            ? ["Inside the prompt, at position ", h("b", {}, String(cursor.position)), ": this row filled the cache. What follows it was given, not chosen."]
            : ["Step ", h("b", {}, String(cursor.step + 1)), ` of ${cursor.last - cursor.first + 1}. `, see.quoted(cursor.text(cursor.position), cursor.id(cursor.position)),
              ` enters, becomes a query and attends to ${see.count(cursor.position + 1, "key")}: ${counts.shared} from a shared prefix, ${counts.chunk} of this prompt, ${counts.generated} generated. `,
              row.value && row.value.next !== null ? [see.quoted(cursor.text(cursor.position + 1), row.value.next), " is chosen with ", h("b", {}, see.percent(Math.exp((row.value.top.find((t) => t.id === row.value.next) || {}).logprob))), "."] : null]);
          see.fill(figure, drawing(cursor, row.value, weights, shape), row.why ? see.missing(row.why) : layer.why ? see.missing(layer.why) : null);
          const ahead = see.guesses.plate(cursor);
          guessed.hidden = !ahead;
          see.fill(guessed, ahead);
          see.fill(under, facts(cursor, row.value));
        },
      };
    },
  });
})();
