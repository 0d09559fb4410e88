"use strict";
// 9 · Two runs side by side, to the first bit that differs.

(() => {
  const { h, svg } = see;

  const strip = (found, side) => {
    const { ids, texts } = found.tokens[side], at = found.token === null ? ids.length : found.token, first = Math.max(0, at - 60);
    const word = (i, more) => h("span", { ...more, title: "position " + i }, texts[i] === null ? `#${ids[i]} ` : texts[i].replaceAll("\n", "↵\n"));
    const parts = [];
    for (let i = first; i < Math.min(ids.length, at + 60); i++) parts.push(word(i, i === at ? { style: { background: "var(--ink)", color: "var(--sheet)", padding: "0 2px" } } : i < found.prompt_lens[side] ? { class: "given" } : i > at ? { class: "branch" } : {}));
    return h("p", { class: "strip" }, first ? h("span", { class: "note" }, `… ${first} before … `) : null, parts);
  };

  const apart = (rows) => {
    const high = Math.max(...rows.apart) || 1, width = 600, step = width / rows.apart.length;
    return svg("svg", { viewBox: `0 0 ${width} 120`, class: "wide", role: "img", "aria-label": "how far apart the residual streams are, layer by layer" },
      rows.apart.map((value, l) => svg("g", {}, svg("title", {}, `${l ? "after layer " + (l - 1) : "embedding"}: ${see.number(value, 5)}`), svg("rect", { x: l * step + 2, width: step - 4, y: 100 - 88 * value / high, height: Math.max(1, 88 * value / high), fill: "url(#p-cut)" }),
        svg("text", { x: (l + 0.5) * step, y: 115, "text-anchor": "middle", class: "mono soft", "font-size": 10 }, l ? String(l - 1) : "emb"))));
  };

  const beside = (found) => h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, found.ids[0]), h("th", { class: "num" }, "Pr"), h("th", {}, found.ids[1]), h("th", { class: "num" }, "Pr"))),
    h("tbody", {}, [0, 1, 2, 3, 4, 5, 6, 7].map((i) => h("tr", {}, [0, 1].map((side) => {
      const t = found.rows.top[side][i];
      return t ? [h("td", {}, see.token(t.text, t.id)), h("td", { class: "num" }, see.percent(Math.exp(t.logprob)))] : [h("td", {}), h("td", {})];
    })))));

  see.views.push({
    key: "diff", title: "Two runs, bit by bit",
    build(root) {
      const select = h("select", { id: "beside", class: "ask" }), out = h("div", { class: "plates" });
      root.append(h("div", { class: "plates" }, h("p", {}, h("label", { for: "beside" }, "Beside "), select), out));
      let other = null;
      select.addEventListener("change", () => { other = select.value; see.draw(); });
      return {
        async draw(cursor, isCurrent) {
          const list = await see.tryGet("requests");
          if (!isCurrent()) return;
          const names = list.value ? list.value.requests.filter((r) => r.id !== cursor.told.id && !r.error).map((r) => r.id) : [];
          if (select.dataset.of !== names.join("\n")) {
            select.dataset.of = names.join("\n");
            see.fill(select, names.map((name) => h("option", { value: name }, name)));
            if (!names.includes(other)) other = (list.value && list.value.beside) || names[0] || null;
            if (other !== null) select.value = other;
          }
          if (other === null || !names.length) { see.caption(["There is no other request to compare with."]); see.fill(out, see.missing(list.why || "This recording has one request.")); return; }
          const got = await see.tryGet("diff/" + other);
          if (!isCurrent()) return;
          if (!got.value) { see.caption([]); see.fill(out, see.missing(got.why)); return; }
          const found = got.value;
          see.caption(found.what === null ? ["No bit differs: ", h("b", {}, see.count(found.tokens[0].ids.length, "token")), found.rows_compared ? [" and ", h("b", {}, see.count(found.rows_equal, "row")), " of logits are the same."] : " are the same; no hashes were there to compare."]
            : ["The first that differs is ", h("b", {}, found.what), " at position ", h("b", {}, String(found.what === "the token" ? found.token : found.row)), found.rows_compared ? `; ${see.count(found.rows_equal, "row")} of logits before it are the same, bit for bit.` : "; tokens before it are the same, and rows that both chose from were not there to compare."]);
          see.fill(out, h("div", { class: "plates even" }, [0, 1].map((side) => see.plate(found.ids[side], Object.entries(found.sampling[side]).map(([k, v]) => `${k} ${typeof v === "object" ? JSON.stringify(v) : v}`).join(", "), strip(found, side)))),
            found.contracts[0] !== found.contracts[1] ? see.missing(`They were computed under two contracts, ${found.contracts.join(" and ")}: bits may differ from the first row.`) : null,
            found.rows ? h("div", { class: "plates even" }, see.plate("How far apart, from layer to layer", `The greatest difference of an entry of the residual stream, at position ${found.row}.`, apart(found.rows), h("p", { class: "note" }, found.rows.first_layer === null ? "Nowhere: the rows are the same." : found.rows.first_layer === 0 ? "They differ from the embedding on: another token was read." : `The first to differ is layer ${found.rows.first_layer - 1}.`, see.mark("derived"))), see.plate("What each would say next", "", beside(found))) : null);
        },
      };
    },
  });
})();
