"use strict";
// 7 · Prefill beside decode: what each cost, and each step as a dot under the machine's roofline.

(() => {
  const { h, svg } = see;
  const W = 860, H = 430, BOX = { left: 74, right: 20, top: 20, bottom: 52 };

  const roofline = (costs) => {
    const steps = costs.steps.filter((s) => s.elapsed_s), roof = costs.ceilings;
    if (!steps.length) return see.missing("No step of this request has its time in the recording.");
    const points = steps.map((s) => ({ ...s, x: s.operations / s.bytes, y: s.operations / s.elapsed_s }));
    const peak = roof ? roof.operations_s : null, slope = roof ? roof.read_bytes_s : null, ridge = roof ? peak / slope : null;
    const bound = (values, low) => Math.pow(10, low ? Math.floor(Math.log10(Math.min(...values)) - 0.05) : Math.ceil(Math.log10(Math.max(...values)) + 0.05));
    const xs = points.map((p) => p.x).concat(ridge ? [ridge * 1.5] : []), ys = points.map((p) => p.y).concat(peak ? [peak] : []);
    const x0 = bound(xs, true), x1 = bound(xs, false), y0 = bound(ys, true), y1 = bound(ys, false);
    const x = (v) => BOX.left + (W - BOX.left - BOX.right) * Math.log(v / x0) / Math.log(x1 / x0);
    const y = (v) => H - BOX.bottom - (H - BOX.top - BOX.bottom) * Math.log(v / y0) / Math.log(y1 / y0);
    const parts = [];
    for (let v = x0; v <= x1 * 1.001; v *= 10) parts.push(svg("line", { x1: x(v), x2: x(v), y1: BOX.top, y2: H - BOX.bottom, class: "hair" }), svg("text", { x: x(v), y: H - BOX.bottom + 18, "text-anchor": "middle", class: "mono soft", "font-size": 11 }, see.number(v)));
    for (let v = y0; v <= y1 * 1.001; v *= 10) parts.push(svg("line", { x1: BOX.left, x2: W - BOX.right, y1: y(v), y2: y(v), class: "hair" }), svg("text", { x: BOX.left - 8, y: y(v) + 4, "text-anchor": "end", class: "mono soft", "font-size": 11 }, see.scaled(v, "")));
    parts.push(svg("text", { x: (BOX.left + W - BOX.right) / 2, y: H - 12, "text-anchor": "middle", class: "soft" }, "operations for each byte that is read"), svg("text", { x: 14, y: H / 2, class: "soft", transform: `rotate(-90 14 ${H / 2})`, "text-anchor": "middle" }, "operations a second"));
    if (roof) {
      const start = Math.max(x0, y0 / slope);
      parts.push(svg("path", { d: `M${x(start)} ${y(start * slope)}L${x(ridge)} ${y(peak)}H${W - BOX.right}`, fill: "none", stroke: "var(--ink)", "stroke-width": 2 }),
        svg("text", { x: x(ridge) + 10, y: y(peak) - 8, "font-weight": 600 }, `multiplies ${see.scaled(peak, "op/s")}`), svg("text", { x: x(Math.sqrt(start * ridge)) - 8, y: y(Math.sqrt(start * ridge) * slope) - 8, "text-anchor": "end", "font-weight": 600 }, `reads ${see.scaled(slope, "B/s")}`));
    }
    // Steps that would stand on one another are one dot, which says how many it is.
    const dots = new Map();
    for (const p of points) {
      const key = `${p.phase} ${Math.round(x(p.x) / 3)} ${Math.round(y(p.y) / 3)}`;
      if (dots.has(key)) dots.get(key).count += 1; else dots.set(key, { p, count: 1 });
    }
    for (const { p, count } of dots.values()) parts.push(svg("g", {}, svg("title", {}, `step ${p.number}, ${p.phase}: ${see.count(p.rows, "row")}, ${see.seconds(p.elapsed_s)}, ${see.scaled(p.operations, "op")}, ${see.scaled(p.bytes, "B")}${count > 1 ? `, and ${see.count(count - 1, "step")} beside it` : ""}`),
      p.phase === "prefill" ? svg("rect", { x: x(p.x) - 5, y: y(p.y) - 5, width: 10, height: 10, fill: "url(#p-chunk)", stroke: "var(--prompt)" }) : svg("circle", { cx: x(p.x), cy: y(p.y), r: Math.min(7, 4 + Math.log10(count)), fill: "var(--generated)", "fill-opacity": 0.55, stroke: "var(--generated)" })));
    return svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "wide", role: "img", "aria-label": `${points.length} steps: operations a second over operations a byte` }, parts);
  };

  const pair = (name, phases, value, show, kind) => {
    const high = Math.max(...phases.map((p) => value(p) || 0)) || 1;
    return h("tr", {}, h("td", {}, name, see.mark(kind)), phases.map((phase, i) => h("td", {}, h("div", { style: { display: "grid", gridTemplateColumns: "7.5rem 1fr", alignItems: "center", gap: ".6rem" } }, h("span", { class: "num" }, show(value(phase))),
      svg("svg", { width: "100%", height: 11, "aria-hidden": "true" }, svg("rect", { width: `${100 * (value(phase) || 0) / high}%`, height: 11, fill: i ? "url(#p-generated)" : "url(#p-chunk)" }))))));
  };

  see.views.push({
    key: "phases", title: "Prefill beside decode",
    build(root) {
      const table = h("div", {}), roof = h("div", {}), shape = h("div", {}), none = h("div", {}), whole = h("div", { class: "plates" });
      whole.append(see.plate("Both phases of this request", "Whole steps are counted, the rows of others in them too: that is what the machine did in that time.", table),
        see.plate("Each step under the roof", "On the left the roof is what the machine reads a second, on the right what it multiplies.", roof, h("div", { class: "legend" }, h("span", {}, "▪ step of the prompt"), h("span", {}, "● step of decoding"))), see.plate("The model", "", shape));
      root.append(none, whole);
      return {
        async draw(cursor, isCurrent) {
          const got = await see.tryGet("costs");
          if (!isCurrent()) return;
          whole.hidden = !got.value || !got.value.steps;
          see.fill(none, whole.hidden ? see.missing(got.why || got.value.missing[0]) : null);
          if (whole.hidden) { see.caption([]); return; }
          const { phases, spec, ceilings, missing } = got.value, [fill, decode] = phases;
          const faster = fill.tokens_s && decode.tokens_s ? fill.tokens_s / decode.tokens_s : null;
          see.caption(["A step reads every weight once, however many rows it has. Decoding does ", h("b", {}, see.number(decode.intensity)), " operations for each byte, the prompt ", h("b", {}, see.number(fill.intensity)), faster ? [faster >= 1 ? ": it passes " : ": it passes only ", h("b", {}, see.number(faster) + " times"), " the tokens a second."] : "."]);
          see.fill(table, h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, ""), h("th", {}, "prefill"), h("th", {}, "decode"))), h("tbody", {},
            pair("time", phases, (p) => p.elapsed_s, see.seconds, "measured"), pair("steps", phases, (p) => p.steps, String, "measured"), pair("tokens of this request", phases, (p) => p.tokens, String, "measured"), pair("rows, others' too", phases, (p) => p.rows, String, "measured"),
            pair("tokens a second", phases, (p) => p.tokens_s, see.number, "derived"), pair("bytes read", phases, (p) => p.bytes, (v) => see.scaled(v, "B"), "derived"), pair("bytes a second", phases, (p) => p.bytes_s, (v) => see.scaled(v, "B/s"), "derived"),
            pair("operations", phases, (p) => p.operations, (v) => see.scaled(v, "op"), "derived"), pair("operations a second", phases, (p) => p.operations_s, (v) => see.scaled(v, "op/s"), "derived"), pair("operations a byte", phases, (p) => p.intensity, see.number, "derived"))));
          see.fill(roof, roofline(got.value), ceilings ? [h("p", { class: "note" }, ceilings.said), got.value.steps.some((s) => s.elapsed_s && s.bytes / s.elapsed_s > ceilings.read_bytes_s)
            ? h("p", { class: "note" }, `Dots above the slope read faster than memory gives at this moment: the ${see.scaled(spec.read_bytes, "B")} of weights may have stayed in the processor's caches, or others keep the memory busy now.`) : null] : see.missing(missing[0] + " Dots stand without a roof."));
          see.fill(shape, see.facts(["architecture", spec.architecture, "measured"], ["layers", String(spec.layers), "measured"], ["heads, key-value heads", `${spec.heads}, ${spec.kv_heads}`, "measured"], ["hidden, in a head", `${spec.hidden}, ${spec.head_dim}`, "measured"], ["vocabulary", String(spec.vocab), "measured"],
            ["parameters", see.scaled(spec.parameters, ""), "derived"], ["read in a step", see.scaled(spec.read_bytes, "B"), "measured"], ["cached a token", see.scaled(spec.kv_token_bytes, "B"), "measured"]));
        },
      };
    },
  });
})();
