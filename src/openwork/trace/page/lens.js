"use strict";
// 5 · The logit lens: what each layer would have said, had the model ended there.

(() => {
  const { h } = see;
  const SIDE = 7;

  const cells = (cursor, rows, positions, layers) => {
    const body = [];
    for (let l = layers; l >= 0; l--) {
      body.push(h("tr", {}, h("th", { scope: "row" }, l === 0 ? "embedding" : l === layers ? "output" : "after " + (l - 1)), positions.map((p, i) => {
        const best = rows[i].value && rows[i].value.lens[l] && rows[i].value.lens[l][0];
        if (!best) return h("td", {}, h("button", { type: "button", disabled: true }, "·"));
        const share = Math.exp(best.logprob), isNext = best.id === rows[i].value.next, isHere = p === cursor.position && l === cursor.layer + 1;
        return h("td", {}, h("button", { type: "button", class: isHere ? "here" : "", style: { background: `color-mix(in srgb, var(--brass-fill) ${Math.round(50 * share)}%, var(--sheet))`, fontWeight: isNext ? "600" : "400",
          textDecoration: isNext ? "underline" : "none" }, title: `position ${p}, ${l === 0 ? "the embedding" : "after layer " + (l - 1)}: ` + rows[i].value.lens[l].map((t) => `${see.plainToken(t.text, t.id)} ${see.percent(Math.exp(t.logprob))}`).join(", "),
          "aria-label": `position ${p}, layer ${l}: ${see.plainToken(best.text, best.id)}, ${see.percent(share)}${isNext ? ", what followed" : ""}`,
          onclick: () => see.cursor.set({ position: p, layer: Math.max(0, l - 1) }) }, see.plainToken(best.text, best.id)));
      })));
    }
    return body;
  };

  see.views.push({
    key: "lens", title: "The logit lens",
    build(root) {
      const grid = h("div", { class: "scroll", style: { maxHeight: "none" } }), detail = h("div", {});
      root.append(h("div", { class: "plates" }, see.plate("Layer by position", "Each cell is the likeliest token of the residual stream read through the final norm and head. The stronger the tint, the likelier; underlined is what really followed.", grid),
        see.plate("This position, from the embedding up", "", detail)));
      return {
        async draw(cursor, isCurrent) {
          const first = Math.max(0, Math.min(cursor.position - SIDE, cursor.last - 2 * SIDE)), positions = [];
          for (let p = first; p <= Math.min(cursor.last, first + 2 * SIDE); p++) positions.push(p);
          const rows = await Promise.all(positions.map((p) => see.tryGet(`row/${cursor.sequence}/${p}`)));
          if (!isCurrent()) return;
          const row = rows[positions.indexOf(cursor.position)].value;
          if (!row) { see.caption([]); see.fill(grid, see.missing(rows[positions.indexOf(cursor.position)].why)); see.fill(detail); return; }
          const layers = row.lens.length - 1;
          const agree = row.lens.findIndex((each, l) => each.length && row.lens.slice(l).every((later) => later.length && later[0].id === row.next));
          see.caption(["After ", see.quoted(cursor.text(cursor.position), cursor.id(cursor.position)), agree >= 0 && row.next !== null
            ? [" the token that followed, ", see.quoted(cursor.text(cursor.position + 1), row.next), ", leads from ", h("b", {}, agree === 0 ? "the embedding" : "layer " + (agree - 1)), " on."]
            : " no layer settles on the token that followed: it was not the likeliest."]);
          see.fill(grid, h("table", { class: "lens" }, h("thead", {}, h("tr", {}, h("th", {}, "reads"), positions.map((p) => h("th", { scope: "col", title: "position " + p, style: { borderBottom: p === cursor.position ? "2px solid var(--brass)" : "2px solid transparent" } }, see.plainToken(cursor.text(p), cursor.id(p)))))),
            h("tbody", {}, cells(cursor, rows, positions, layers))));
          see.fill(detail, h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, "read after"), h("th", {}, "would say"), h("th", {}, ""), h("th", {}, ""), h("th", { class: "num" }, "size of x", see.mark("measured", "root of the mean square of the residual stream")))),
            h("tbody", {}, row.lens.map((each, l) => h("tr", {}, h("td", {}, l === 0 ? "the embedding" : l === layers ? `layer ${l - 1}, the output` : "layer " + (l - 1)),
              [0, 1, 2].map((i) => h("td", {}, each[i] ? [see.token(each[i].text, each[i].id), " ", h("span", { class: "note" }, see.percent(Math.exp(each[i].logprob)))] : "")), h("td", { class: "num" }, see.number(row.residual_norms[l])))))));
        },
      };
    },
  });
})();
