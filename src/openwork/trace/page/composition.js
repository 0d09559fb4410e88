"use strict";
// 2 · Query, keys and values: the vectors of one head before and after rope, and where its attention went.

(() => {
  const { h, svg } = see;

  // A vector as bars up and down from a line; all of them on one scale.
  const vector = (name, values, scale, colour, kind) => {
    const width = 560, height = 46, step = width / values.length;
    return h("div", { style: { display: "grid", gridTemplateColumns: "8.2rem 1fr", alignItems: "center", gap: ".6rem" } },
      h("span", { class: "note" }, name, see.mark(kind)),
      svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "wide", preserveAspectRatio: "none", role: "img", style: { height: "46px" },
        "aria-label": `${name}: ${values.length} entries, from ${see.number(Math.min(...values))} to ${see.number(Math.max(...values))}` },
        svg("line", { x1: 0, x2: width, y1: height / 2, y2: height / 2, class: "hair" }),
        [...values].map((value, i) => svg("rect", { x: i * step + step * 0.12, width: step * 0.76, y: height / 2 - Math.max(0, value) / scale * 22,
          height: Math.max(0.5, Math.abs(value) / scale * 22), fill: value < 0 ? "url(#p-shared)" : `var(--${colour})` },
          svg("title", {}, `entry ${i}: ${see.number(value, 5)}`)))));
  };

  // Rope turns pair i of a head by position times frequency i: the thin hand is before, the strong one after.
  const dials = (before, after, dim, position) => {
    const pairs = dim / 2, shown = Math.min(pairs, 32), size = 46;
    const found = [];
    for (let i = 0; i < shown; i++) {
      const length = Math.hypot(before[i], before[i + pairs]) || 1e-12;
      const angle = (v) => Math.atan2(v[i + pairs], v[i]);
      const hand = (turn, more) => svg("line", { x1: 23, y1: 23, x2: 23 + 16 * Math.cos(turn), y2: 23 - 16 * Math.sin(turn), ...more });
      found.push(svg("svg", { width: size, height: size, viewBox: "0 0 46 46", role: "img", "aria-label": `pair ${i}: length ${see.number(length)}` },
        svg("title", {}, `pair ${i} (entries ${i} and ${i + pairs}), length ${see.number(length)}: from ${see.number(angle(before))} to ${see.number(angle(after))} radians`),
        svg("circle", { cx: 23, cy: 23, r: 19, fill: "none", stroke: "var(--line)" }),
        [0, 1, 2, 3].map((q) => svg("line", { x1: 23 + 17 * Math.cos(q * Math.PI / 2), y1: 23 + 17 * Math.sin(q * Math.PI / 2), x2: 23 + 19 * Math.cos(q * Math.PI / 2), y2: 23 + 19 * Math.sin(q * Math.PI / 2), stroke: "var(--soft)" })),
        hand(angle(before), { stroke: "var(--soft)", "stroke-dasharray": "2 2" }), hand(angle(after), { stroke: "var(--brass)", "stroke-width": 2 }),
        svg("circle", { cx: 23, cy: 23, r: 1.8, fill: "var(--ink)" })));
    }
    return h("div", {}, h("div", { style: { display: "flex", flexWrap: "wrap", gap: "2px", margin: ".5rem 0" } }, found),
      h("p", { class: "note" }, `What rope does to this query at position ${position}, pair by pair`, shown < pairs ? `, the first ${shown} of ${pairs}` : "",
        ": dashed before, brass after. The first pairs turn fastest.", see.mark("derived", "angles of the measured q before and after")));
  };

  const headMap = (cursor, seen, pick) => {
    const { layers, heads } = cursor.shape, spread = seen && see.array(seen.entropy);
    const most = Math.log(cursor.position + 1) || 1;
    const size = Math.max(9, Math.min(26, Math.floor(300 / heads)));
    const grid = svg("svg", { width: heads * size + 34, height: layers * size + 22, role: "img", "aria-label": `attention of ${layers} layers and ${heads} heads; layer ${cursor.layer}, head ${cursor.head} is chosen` });
    for (let l = 0; l < layers; l++) {
      if (layers <= 16 || l % 4 === 0) grid.append(svg("text", { x: 24, y: (l + 0.7) * size, "text-anchor": "end", class: "mono soft", "font-size": 10 }, String(l)));
      for (let head = 0; head < heads; head++) {
        const focus = spread ? 1 - Math.min(1, spread.values[l * heads + head] / most) : 0;
        const isOn = l === cursor.layer && head === cursor.head;
        grid.append(svg("g", { style: { cursor: "pointer" }, onclick: () => pick(l, head) },
          svg("title", {}, `layer ${l}, head ${head}` + (spread ? `: entropy ${see.number(spread.values[l * heads + head])} of at most ${see.number(most)} nats` : "")),
          svg("rect", { x: 30 + head * size, y: l * size, width: size, height: size, fill: "var(--sheet)", stroke: "var(--hair)" }),
          svg("circle", { cx: 30 + (head + 0.5) * size, cy: (l + 0.5) * size, r: Math.max(1, (size / 2 - 2) * focus), fill: "var(--brass-fill)" }),
          isOn ? svg("rect", { x: 31 + head * size, y: l * size + 1, width: size - 2, height: size - 2, fill: "none", stroke: "var(--ink)", "stroke-width": 2 }) : null));
      }
    }
    grid.append(svg("text", { x: 30, y: layers * size + 15, class: "soft", "font-size": 11 }, "head →   ↓ layer"));
    return grid;
  };

  const positions = (canvas, cursor, weights) => {
    const { context, width, height } = see.canvas(canvas, 150), ink = see.ink(), count = weights.length;
    const step = width / count, high = Math.max(...weights), foot = height - 34;
    const fills = { shared: see.pattern(context, "shared"), chunk: see.pattern(context, "chunk"), generated: see.pattern(context, "generated") };
    context.strokeStyle = ink.line;
    context.beginPath(); context.moveTo(0, foot + 0.5); context.lineTo(width, foot + 0.5); context.stroke();
    const columns = Math.min(count, Math.floor(width));
    for (let c = 0; c < columns; c++) {
      const first = Math.floor(c * count / columns), end = Math.max(first + 1, Math.floor((c + 1) * count / columns));
      let best = first;
      for (let p = first; p < end; p++) if (weights[p] > weights[best]) best = p;
      const x = first * step, w = Math.max(1, (end - first) * step - (step > 4 ? 1 : 0));
      context.fillStyle = ink["brass-fill"];
      const tall = weights[best] / high * (foot - 18);
      context.fillRect(x, foot - tall, w, tall);
      context.fillStyle = fills[cursor.kind(best)];
      context.fillRect(x, foot + 3, w, 11);
    }
    context.fillStyle = ink.soft;
    context.fillText(see.percent(high), 2, 10);
    context.fillText("0", 2, height - 6);
    context.textAlign = "right";
    context.fillText(String(count - 1), width - 2, height - 6);
    context.textAlign = "left";
  };

  const words = (cursor, weights) => {
    const count = weights.length, first = Math.max(0, count - 400), high = Math.max(...weights);
    const line = h("div", { class: "strip", style: { fontSize: "16px", lineHeight: "1.9" } }, first ? h("span", { class: "note" }, `… ${first} before … `) : null);
    for (let p = first; p < count; p++) {
      const share = weights[p] / high;
      line.append(h("span", { title: `position ${p}: ${see.percent(weights[p])}`, style: { borderBottom: `${Math.max(0.5, 6 * share).toFixed(1)}px solid var(--brass-fill)`, opacity: (0.62 + 0.38 * share).toFixed(2) } },
        cursor.text(p) === null ? "#" + cursor.id(p) + " " : cursor.text(p).replaceAll("\n", "↵\n")));
    }
    return line;
  };

  const masses = (cursor, layer, weights) => {
    const sums = cursor.sources.map((each) => {
      let sum = 0;
      for (let p = each.first; p < Math.min(each.end, weights.length); p++) sum += weights[p];
      return { ...each, sum };
    }).filter((each) => each.first < weights.length);
    const bar = svg("svg", { viewBox: "0 0 300 22", class: "wide", preserveAspectRatio: "none", style: { height: "22px" }, role: "img", "aria-label": sums.map((s) => `${s.label} ${see.percent(s.sum)}`).join(", ") });
    let x = 0;
    for (const each of sums) { bar.append(svg("rect", { x: 300 * x, width: 300 * each.sum, height: 22, fill: `url(#p-${each.kind})` })); x += each.sum; }
    return [bar, h("table", { style: { marginTop: ".5rem" } }, sums.map((each) => h("tr", {},
      h("td", {}, svg("svg", { width: 16, height: 11, "aria-hidden": "true" }, svg("rect", { width: 16, height: 11, fill: `url(#p-${each.kind})` })), " ", each.label),
      h("td", { class: "num" }, `${each.first}–${each.end - 1}`), h("td", { class: "num" }, see.percent(each.sum)))))];
  };

  const blocks = (cursor, layer) => {
    const sums = see.part(see.array(layer.blocks), cursor.head), size = cursor.told.block_size;
    const found = cursor.engineStep(cursor.position), table = found ? found.work.blocks : [];
    const high = Math.max(...sums);
    return h("div", { class: "scroll", style: { maxHeight: "15rem" } }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", {}, "positions"), h("th", { class: "num" }, "block"), h("th", { class: "num" }, "mass"), h("th", {}, ""))),
      h("tbody", {}, [...sums].map((sum, i) => h("tr", {}, h("td", { class: "num", style: { textAlign: "left" } }, `${i * size}–${Math.min(i * size + size - 1, cursor.position)}`),
        h("td", { class: "num" }, i < table.length ? "#" + table[i] : "—"), h("td", { class: "num" }, see.percent(sum)),
        h("td", { style: { width: "40%" } }, svg("svg", { width: "100%", height: 9, "aria-hidden": "true" }, svg("rect", { width: `${100 * sum / high}%`, height: 9, fill: "url(#p-weight)" }))))))));
  };

  see.views.push({
    key: "composition", title: "Query, keys and values",
    build(root) {
      const map = h("div", {}), vectors = h("div", {}), canvas = h("canvas", { class: "wide", role: "img" }), text = h("div", { class: "scroll", style: { maxHeight: "16rem" } });
      const source = h("div", {}), block = h("div", {}), whole = h("div", { class: "plates" });
      let now = null;
      see.tip(canvas, (x, y, box) => {
        if (!now) return null;
        const p = Math.min(now.length - 1, Math.floor(x / box.width * now.length));
        return `${see.plainToken(see.cursor.text(p), see.cursor.id(p))} · position ${p} · ${see.percent(now[p])}`;
      });
      canvas.addEventListener("click", (event) => {
        if (!now) return;
        const box = canvas.getBoundingClientRect();
        see.cursor.set({ position: Math.floor((event.clientX - box.left) / box.width * now.length) });
      });
      whole.append(
        h("div", { class: "plates two" }, see.plate("The vectors of this head", "All on one scale; what is below the line is hatched.", vectors),
          see.plate("Which head", "A full dot is a head that looks at one position only, an empty one looks at all alike.", map)),
        see.plate("Attention over positions", "", canvas, see.legend("weight", "shared", "chunk", "generated"), text),
        h("div", { class: "plates even" }, see.plate("Mass of each source", "", source), see.plate("Mass of each block", "", block)));
      const none = h("div", {});
      root.append(none, whole);
      return {
        async draw(cursor, isCurrent) {
          const layer = await see.tryGet(`layer/${cursor.sequence}/${cursor.position}/${cursor.layer}`);
          if (!isCurrent()) return;
          see.caption(["At position ", h("b", {}, String(cursor.position)), " ", see.quoted(cursor.text(cursor.position), cursor.id(cursor.position)),
            " asks with q and answers later queries with k and v. Layer ", h("b", {}, String(cursor.layer)), ", head ", h("b", {}, String(cursor.head)),
            ": weights are softmax(q · k), and what the head gives on is the mix of values under them."]);
          whole.hidden = !layer.value;
          see.fill(none, layer.value ? null : see.missing(layer.why));
          if (!layer.value) return;
          const group = cursor.shape.heads / cursor.shape.kv_heads, kv = Math.floor(cursor.head / group), dim = cursor.shape.rope_dim;
          const get = (name, place) => see.part(see.array(layer.value[name]), place);
          const rows = [["q before rope", get("q_before", cursor.head), "brass-fill"], ["q", get("q", cursor.head), "brass-fill"], ["k before rope", get("k_before", kv), "generated"],
            ["k, as it is cached", get("k", kv), "generated"], ["v", get("v", kv), "prompt"]];
          const scale = Math.max(...rows.map(([, v]) => Math.max(...v.map(Math.abs))));
          see.fill(vectors, rows.map(([name, v, colour]) => vector(name, v, scale, colour, "measured")),
            group > 1 ? h("p", { class: "note" }, `Heads ${kv * group} to ${kv * group + group - 1} share key and value head ${kv}.`) : null,
            dim ? dials(rows[0][1], rows[1][1], dim, cursor.position) : h("p", { class: "note" }, "This model has no rope: positions are learned, and q is not turned."));
          const pick = (l, head) => see.cursor.set({ layer: l, head });
          if (!map.firstChild) see.fill(map, headMap(cursor, null, pick));
          setTimeout(async () => { // all heads take longest: they come when one has stopped to look
            const heads = isCurrent() ? await see.tryGet(`heads/${cursor.sequence}/${cursor.position}`) : null;
            if (heads && isCurrent()) see.fill(map, headMap(cursor, heads.value, pick), heads.why ? h("p", { class: "note" }, heads.why) : null);
          }, see.documents.isLive ? 350 : 0);
          now = see.part(see.array(layer.value.weights), cursor.head);
          canvas.setAttribute("aria-label", `attention weights over ${now.length} positions, at most ${see.percent(Math.max(...now))}`);
          positions(canvas, cursor, now);
          see.fill(text, words(cursor, now));
          see.fill(source, masses(cursor, layer.value, now));
          see.fill(block, blocks(cursor, layer.value));
        },
      };
    },
  });
})();
