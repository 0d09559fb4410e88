"use strict";
// 6 · The tree of a search: what was looked at, what was found, and what was left, with a bound on each.

(() => {
  const { h, svg } = see;
  const MOST = 240, WIDE = 7, ROW = 24, COLUMN = 196;

  // Rows are given to leaves in order, likeliest first; a place stands beside the middle of what hangs on it. Of the
  // children of a place the likeliest are drawn, and all that lead to something found.
  const layout = (trace) => {
    const children = trace.map(() => []), leads = new Set();
    trace.forEach((each, i) => { if (each.parent !== null) children[each.parent].push(i); });
    trace.forEach((each, i) => { if (each.state === "found") for (let at = i; at !== null && !leads.has(at); at = trace[at].parent) leads.add(at); });
    const nodes = [];
    let rows = 0;
    const visit = (i, depth, parent) => {
      const node = { i, depth, parent, y: 0, leads: leads.has(i) };
      nodes.push(node);
      const best = children[i].slice().sort((a, b) => leads.has(b) - leads.has(a) || (trace[b].bound ?? -1e9) - (trace[a].bound ?? -1e9) || a - b);
      const drawn = nodes.length > MOST ? [] : best.filter((child, place) => place < WIDE || leads.has(child));
      const left = best.filter((child) => !drawn.includes(child)), ys = drawn.map((child) => visit(child, depth + 1, node));
      if (left.length) {
        const rest = { i: null, depth: depth + 1, parent: node, y: rows++, leads: false, more: left.length, bound: Math.max(...left.map((child) => trace[child].bound ?? -Infinity)) };
        nodes.push(rest);
        ys.push(rest.y);
      }
      node.y = ys.length ? (ys[0] + ys[ys.length - 1]) / 2 : rows++;
      return node.y;
    };
    if (trace.length) visit(0, 0, null);
    return { nodes, rows };
  };

  const words = (each) => each.parent === null ? "prompt" : each.state === "rest" ? "all others" : each.ids.length ? each.texts.map((t, j) => see.plainToken(t, each.ids[j])).join("") : "end";

  const drawing = (search) => {
    const most = search.tree_by === "rows" ? "is likelier than" : "scores above";
    const { trace } = search, { nodes, rows } = layout(trace);
    const depth = Math.max(...nodes.map((n) => n.depth), 0);
    const x = (n) => 24 + n.depth * COLUMN, y = (n) => 18 + n.y * ROW;
    const parts = nodes.map((node) => {
      const each = node.i === null ? null : trace[node.i], state = each ? each.state : "open", isSeen = state === "expanded" || state === "found";
      const said = each ? words(each) : see.count(node.more, "more", "more"), bound = each ? each.bound : node.bound;
      const value = isSeen ? see.number(each.logprob) : "≤ " + see.number(bound);
      const before = node.parent ? trace[node.parent.i].logprob : null;
      const share = each && isSeen && before !== null && each.logprob !== null ? Math.exp(Math.min(0, each.logprob - before)) : 0;
      const from = node.parent && { x: x(node.parent) + COLUMN - 62, y: y(node.parent) };
      return svg("g", {}, svg("title", {}, each ? `${said}: ${state}; log-probability ${see.number(each.logprob, 5)}, nothing behind it ${most} ${see.number(bound, 5)}${each.hash ? `; row of logits ${each.hash}` : ""}` : `${said}, not drawn`),
        from ? svg("path", { d: `M${from.x} ${from.y}C${from.x + 34} ${from.y} ${x(node) - 38} ${y(node)} ${x(node) - 8} ${y(node)}`, fill: "none",
          stroke: node.leads ? "var(--brass)" : "var(--faint)", "stroke-width": isSeen ? 0.8 + 5 * share : 1, "stroke-dasharray": isSeen ? null : "2 3" }) : null,
        svg("rect", { x: x(node) - 6, y: y(node) - 5, width: 10, height: 10, rx: state === "found" ? 5 : 0, fill: state === "found" ? "var(--brass)" : state === "rest" ? "url(#p-cut)" : isSeen ? "var(--ink)" : "var(--sheet)", stroke: node.leads ? "var(--brass)" : "var(--ink)" }),
        svg("text", { x: x(node) + 10, y: y(node) + 4.5, class: isSeen ? "serif" : "serif soft", "font-size": 14.5, "font-weight": node.leads ? 600 : 400 }, said.length > 10 ? said.slice(0, 9) + "…" : said),
        svg("text", { x: x(node) + COLUMN - 68, y: y(node) + 4, class: "mono soft", "text-anchor": "end", "font-size": 11 }, value));
    });
    return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "the tree", "data-root": String(y(nodes[0])), style: { maxHeight: "46rem" } },
      svg("svg", { width: 40 + (depth + 1) * COLUMN, height: 30 + rows * ROW, role: "img", "aria-label": `a tree of ${trace.length} places` }, parts));
  };

  // What was never looked at, as a part of all answers: each open place by the probability of the line that leads to it.
  const unseen = (trace) => trace.filter((t) => t.state === "open" || t.state === "rest").reduce((sum, each) => sum + Math.exp(each.logprob ?? -Infinity), 0);

  see.views.push({
    key: "search", title: "The search tree",
    build(root) {
      const tree = h("div", {}), facts = h("div", {}), found = h("div", {}), whole = h("div", { class: "plates" }), none = h("div", {}), how = h("p", { class: "note" });
      whole.append(see.plate("What is certain", "", facts), see.plate("What was looked at", "Numbers are log-probabilities of the line so far; the thicker a line, the likelier its token. A dashed one leads to what was never looked at.", how, tree,
        h("div", { class: "legend" }, ["■ looked at", "● found", "□ open: only its bound is known", "▨ all others together"].map((t) => h("span", {}, t)))), see.plate("What was found", "", found));
      root.append(none, whole);
      return {
        async draw(cursor) {
          const { search } = cursor.told;
          whole.hidden = !search;
          if (!search) { see.caption(["This request was not a search: each token was chosen as it came."]); see.fill(none, see.missing("There is no tree. Search with openwork search, LLM.search or LLM.choose to have one.")); return; }
          see.fill(none);
          const open = search.trace.filter((t) => t.state === "open" || t.state === "rest");
          see.caption([search.proved ? ["Proved: ", h("b", {}, "nothing scores higher"), " than what was found. "] : search.upper_bound === null ? "A beam proves nothing. " : ["Not proved: at most ", h("b", {}, see.number(search.gap)), " from the best. "],
            `${see.count(search.nodes, "place")} looked at in ${see.count(search.generations, "step")}.`]);
          see.fill(facts, see.facts(["ended by", search.ended_by, "measured"], ["no answer scores above", see.number(search.upper_bound, 5), "derived", "the greatest bound of what is open"], ["gap", see.number(search.gap, 4), "derived"],
            ["places looked at", String(search.nodes), "measured"], open.length ? ["left unseen", h("span", {}, see.percent(Math.min(1, unseen(search.trace))), h("small", {}, ` in ${open.length} places`)), "derived", "probability of all lines that lead to a place that was never looked at, of those recorded"] : null));
          how.textContent = search.tree_by !== "rows" ? "Its bound was below what had been found." : "Drawn from the rows that were read; bounds are of log-probabilities, and an open place was given up or not come to."
            + (search.tree_left_out ? ` ${see.count(search.tree_left_out, "further place")} left out.` : "");
          // The root stands beside the middle of all that hangs on it: there one begins to read.
          requestAnimationFrame(() => { const box = tree.firstChild; if (box && box.dataset.root) box.scrollTop = Number(box.dataset.root) - box.clientHeight / 2; });
          see.fill(tree, search.trace.length ? drawing(search) : see.missing("The tree was not recorded: without its tokens it is only where the search is asked for its trace."));
          see.fill(found, h("table", {}, h("thead", {}, h("tr", {}, h("th", { class: "num" }, "score"), h("th", { class: "num" }, "log Pr"), h("th", {}, "text"), h("th", {}, "end"))),
            h("tbody", {}, search.found.map((each) => h("tr", {}, h("td", { class: "num" }, see.number(each.score, 5)), h("td", { class: "num" }, see.number(each.logprob, 5)), h("td", { class: "token" }, each.texts.map((t, i) => see.shown(t, each.ids[i])).join("")), h("td", {}, each.finish_reason))))));
        },
      };
    },
  });
})();
