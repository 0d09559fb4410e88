"use strict";
// 6 · The tree of a search: what was looked at, what was found, and what was left, with a bound on each.

(() => {
  const { h, svg } = see;
  const MOST = 260, ROW = 25, COLUMN = 172;

  // Rows are given to leaves in order, likeliest first; a place stands beside the middle of what hangs on it.
  const layout = (trace) => {
    const children = trace.map(() => []);
    trace.forEach((each, i) => { if (each.parent !== null) children[each.parent].push(i); });
    const shown = [], place = new Map();
    let rows = 0, left = 0;
    const visit = (i, depth) => {
      if (shown.length >= MOST) { left++; return null; }
      shown.push(i);
      const own = children[i].slice().sort((a, b) => (trace[b].bound ?? -1e9) - (trace[a].bound ?? -1e9) || a - b);
      const middle = own.map((child) => visit(child, depth + 1)).filter((y) => y !== null);
      const y = middle.length ? (middle[0] + middle[middle.length - 1]) / 2 : rows++;
      place.set(i, { depth, y });
      return y;
    };
    if (trace.length) visit(0, 0);
    return { shown, place, rows, left };
  };

  const drawing = (search) => {
    const { trace } = search, { shown, place, rows, left } = layout(trace);
    const depth = Math.max(...[...place.values()].map((p) => p.depth), 0);
    const x = (i) => 70 + place.get(i).depth * COLUMN, y = (i) => 20 + place.get(i).y * ROW;
    const parts = shown.map((i) => {
      const each = trace[i], isFound = each.state === "found", isOpen = each.state === "open", isRest = each.state === "rest";
      const before = each.parent === null ? null : trace[each.parent].logprob, share = before === null || each.logprob === null ? 1 : isOpen ? Math.exp(Math.min(0, each.logprob)) : Math.exp(Math.min(0, each.logprob - before));
      const words = each.parent === null ? "prompt" : isRest ? "all others" : each.ids.length ? each.texts.map((t, j) => see.plainToken(t, each.ids[j])).join("") : "end";
      const value = isOpen || isRest ? "≤ " + see.number(each.bound) : see.number(each.logprob);
      return svg("g", {}, svg("title", {}, `${words}: ${each.state}; log-probability ${see.number(each.logprob, 5)}, nothing behind it scores above ${see.number(each.bound, 5)}`),
        each.parent === null || !place.has(each.parent) ? null : svg("path", { d: `M${x(each.parent) + 96} ${y(each.parent)}C${x(each.parent) + 126} ${y(each.parent)} ${x(i) - 44} ${y(i)} ${x(i) - 10} ${y(i)}`, fill: "none",
          stroke: isFound ? "var(--brass)" : "var(--faint)", "stroke-width": isRest ? 1 : 0.6 + 5 * share, "stroke-dasharray": isOpen || isRest ? "2 3" : null }),
        svg("rect", { x: x(i) - 7, y: y(i) - 5, width: 10, height: 10, rx: isFound ? 5 : 0, fill: isFound ? "var(--brass)" : isRest ? "url(#p-cut)" : isOpen ? "var(--sheet)" : "var(--ink)", stroke: "var(--ink)" }),
        svg("text", { x: x(i) + 9, y: y(i) + 5, class: isRest ? "soft" : "serif", "font-size": 14, "font-weight": isFound ? 600 : 400 }, words.length > 11 ? words.slice(0, 10) + "…" : words),
        svg("text", { x: x(i) + 9, y: y(i) + 16, class: "mono soft", "font-size": 9 }, value));
    });
    return [h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "the tree", style: { maxHeight: "38rem" } },
      svg("svg", { width: 120 + (depth + 1) * COLUMN, height: 34 + rows * ROW, role: "img", "aria-label": `a tree of ${trace.length} places, ${shown.length} drawn` }, parts)),
      left ? h("p", { class: "note" }, `${see.count(left, "more subtree")} not drawn.`) : null];
  };

  see.views.push({
    key: "search", title: "The search tree",
    build(root) {
      const tree = h("div", {}), facts = h("div", {}), found = h("div", {}), whole = h("div", { class: "plates" }), none = h("div", {});
      whole.append(see.plate("What is certain", "", facts), see.plate("What was looked at", "Thick lines are likely ones. A dashed line leads to what was never looked at, because its bound was below what had been found.", tree,
        h("div", { class: "legend" }, ["■ looked at", "● found", "□ open: only its bound is known", "▨ all others together"].map((t) => h("span", {}, t)))), see.plate("What was found", "", found));
      root.append(none, whole);
      return {
        async draw(cursor) {
          const { search } = cursor.told;
          whole.hidden = !search;
          if (!search) { see.caption(["This request was not a search: each token was chosen as it came."]); see.fill(none, see.missing("There is no tree. Search with openwork search, LLM.search or LLM.choose, with trace, to have one recorded.")); return; }
          see.fill(none);
          const open = search.trace.filter((t) => (t.state === "open" || t.state === "rest") && t.logprob !== null);
          see.caption([search.proved ? ["Proved: ", h("b", {}, "nothing scores higher"), " than what was found. "] : search.upper_bound === null ? "A beam proves nothing. " : ["Not proved: at most ", h("b", {}, see.number(search.gap)), " from the best. "],
            `${see.count(search.nodes, "place")} looked at in ${see.count(search.generations, "step")}.`]);
          see.fill(facts, see.facts(["ended by", search.ended_by, "measured"], ["no answer scores above", see.number(search.upper_bound, 5), "derived", "the greatest bound of what is open"], ["gap", see.number(search.gap, 4), "derived"],
            ["places looked at", String(search.nodes), "measured"], ["left unseen", String(open.length), "measured", "places and rests that were never looked at, of those recorded"]));
          see.fill(tree, search.trace.length ? drawing(search) : see.missing("The tree was not recorded: it is when the search is asked for its trace."));
          see.fill(found, h("table", {}, h("thead", {}, h("tr", {}, h("th", { class: "num" }, "score"), h("th", { class: "num" }, "log Pr"), h("th", {}, "text"), h("th", {}, "end"))),
            h("tbody", {}, search.found.map((each) => h("tr", {}, h("td", { class: "num" }, see.number(each.score, 5)), h("td", { class: "num" }, see.number(each.logprob, 5)), h("td", { class: "token" }, each.texts.map((t, i) => see.shown(t, each.ids[i])).join("")), h("td", {}, each.finish_reason))))));
        },
      };
    },
  });
})();
