"use strict";
// 9 · Two runs side by side, of one recording or of two, to the first bit that differs.

(() => {
  const { h, svg } = see;
  const NAMES = { model: "model", contract_id: "contract", dtype: "weights", kv_dtype: "cache", threads: "threads", version: "version" };
  const ROWS = { residual: "the residual stream", q_before: "the query as projected", k_before: "the key as projected", v: "the value", q: "the query", k: "the key", mixed: "the values as mixed", logits: "the logits" };

  const shown = (value) => (value === null || value === undefined ? "—" : typeof value === "object" ? JSON.stringify(value) : String(value));
  const asked = (sampling) => Object.entries(sampling).map(([k, v]) => `${k} ${shown(v)}`).join(", ");

  const strip = (found, side) => {
    const { ids, texts } = found.tokens[side], at = found.token === null ? ids.length : found.token, first = Math.max(0, at - 60);
    const word = (i, more) => h("span", { ...more, title: "position " + i }, texts[i] === null ? `#${ids[i]} ` : texts[i].replaceAll("\n", "↵\n"));
    const parts = [];
    for (let i = first; i < Math.min(ids.length, at + 60); i++) {
      const isGiven = i < found.prompt_lens[side];
      parts.push(word(i, i === at ? { class: "parting" } : isGiven ? { class: "given" } : i > at ? { class: "branch" } : {}));
    }
    const ended = ids.length <= at && found.what === "length" ? h("span", { class: "tag plain" }, "ended: " + found.finish_reasons[side]) : null;
    return h("p", { class: "strip" }, first ? h("span", { class: "note" }, `… ${first} before … `) : null, parts, ended);
  };

  // One line for all positions: what was given, rows whose hashes are the same, and the first that is not.
  const tape = (found) => {
    const width = 1000, count = Math.max(...found.tokens.map((t) => t.ids.length)), step = width / Math.max(1, count);
    const given = Math.max(...found.prompt_lens), until = found.row !== null ? found.row : found.token === null ? count : found.token;
    const box = (from, to, fill, title) => (to > from ? svg("rect", { x: from * step, y: 6, width: (to - from) * step, height: 20, fill }, svg("title", {}, title)) : null);
    return svg("svg", { viewBox: `0 0 ${width} 50`, class: "wide", role: "img", "aria-label": `${count} positions; the first difference is at ${found.what === null ? "none" : until}` },
      box(0, Math.min(given, until), "url(#p-chunk)", `positions 0 to ${Math.min(given, until) - 1}: the same prompt`),
      box(given, until, found.rows_compared ? "var(--generated)" : "url(#p-cached)", `positions ${given} to ${until - 1}: ${found.rows_compared ? "rows with the same bits" : "the same tokens"}`),
      box(until, count, "url(#p-cut)", `from position ${until} on`),
      found.what === null ? null : [svg("line", { x1: until * step, x2: until * step, y1: 0, y2: 32, class: "ink", "stroke-width": 2 }),
        svg("text", { x: Math.min(width - 70, Math.max(0, until * step - 4)), y: 46, class: "mono", "font-size": 12 }, String(until))]);
  };

  // On a logarithmic scale, where a first difference of one bit is as visible as what becomes of it.
  const apart = (lit, first) => {
    const width = 640, height = 190, foot = 160, left = 46, step = (width - left) / lit.apart.length, sizes = lit.apart.map((a) => a.most).filter(Boolean);
    const low = Math.floor(Math.log10(Math.min(1, ...sizes)) - 0.3), high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...sizes, 1e-30)))), parts = [];
    const y = (most) => foot - 145 * (Math.log10(most) - low) / (high - low);
    for (let ten = low; ten <= high; ten += Math.ceil((high - low) / 5)) parts.push(svg("line", { x1: left, x2: width, y1: y(10 ** ten), y2: y(10 ** ten), class: "hair" }), svg("text", { x: left - 6, y: y(10 ** ten) + 3, "text-anchor": "end", class: "mono soft", "font-size": 10 }, "1e" + ten));
    const every = Math.ceil(lit.apart.length / 18);
    lit.apart.forEach((each, l) => parts.push(svg("g", {}, svg("title", {}, `${l ? "after layer " + (l - 1) : "embedding"}: ${each.entries} of ${each.of} entries differ, at most by ${see.number(each.most, 5)}, or ${each.ulps} ulps`),
      svg("rect", { x: left + l * step, width: step, y: 0, height: foot, fill: "transparent" }),
      each.most ? svg("rect", { x: left + l * step + step * 0.15, width: step * 0.7, y: y(each.most), height: foot - y(each.most), fill: "url(#p-cut)", stroke: first && first.layer === l - 1 && first.position === lit.position ? "var(--ink)" : "none", "stroke-width": 2 }) : null,
      l % every ? null : svg("text", { x: left + (l + 0.5) * step, y: foot + 16, "text-anchor": "middle", class: "mono soft", "font-size": 10 }, l ? String(l - 1) : "emb"))));
    return svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "wide", role: "img", "aria-label": "how far the residual streams lie apart, layer by layer" }, parts);
  };

  const begins = (lit) => {
    const first = lit.first;
    if (!first) return h("p", { class: "note" }, lit.logits && lit.logits.entries === 0 ? "Nowhere: up to this row, everything that was computed has the same bits on both sides." : "They did not read the same tokens, so all of it differs.");
    const where = first.layer === null ? first.op : `layer ${first.layer}, ${first.op}`;
    return [h("p", { class: "lead" }, "At position ", h("b", {}, String(first.position)), ", in ", h("b", {}, where), ": entry ", h("b", {}, first.entry.join(", ")), ` of ${ROWS[first.name] || first.name} is `,
      h("b", {}, see.number(first.values[0], 9)), " here and ", h("b", {}, see.number(first.values[1], 9)), " there, ", see.count(first.ulps, "ulp"), " apart."),
      see.facts(["entries that differ there", h("span", {}, String(first.distance.entries), h("small", {}, ` of ${first.distance.of}`)), "derived", "both sides computed again"], ["most", see.number(first.distance.most, 4), "derived"],
        ["most, in ulps", first.distance.ulps.toLocaleString("en"), "derived", "representable float32 numbers between the two"], lit.logits && ["logits that differ", h("span", {}, String(lit.logits.entries), h("small", {}, ` of ${lit.logits.of}`)), "derived"], lit.logits && ["most of a logit", see.number(lit.logits.most, 4), "derived"])];
  };

  const stamped = (stamps) => {
    const first = stamps.first;
    return h("p", { class: "lead" }, stamps.why_not ? stamps.why_not : !first ? `Nothing: at ${see.count(stamps.compared, "row")} both were recorded with hashes of what passed inside the model, and all are the same.`
      : ["At position ", h("b", {}, String(first.position)), ", in ", h("b", {}, first.layer === null ? first.op : `layer ${first.layer}, ${first.op}`), stamps.equal ? `: ${see.count(stamps.equal, "row")} before it had the same hashes throughout.` : ": it is the first row that both were recorded with hashes of."], see.mark("measured", "hashes of points inside the model, recorded beside both tokens"));
  };

  const said = (found, lit) => h("table", {}, h("thead", {}, h("tr", {}, [0, 1].map((side) => [h("th", {}, label(found, side)), h("th", { class: "num", style: { paddingRight: side ? null : "2rem" } }, "Pr")]))),
    h("tbody", {}, [0, 1, 2, 3, 4, 5, 6, 7].map((i) => h("tr", {}, [0, 1].map((side) => {
      const t = (lit.sides[side].top || [])[i], next = found.tokens[side].ids[lit.position + 1];
      return t ? [h("td", {}, t.id === next ? h("b", {}, see.token(t.text, t.id)) : see.token(t.text, t.id), t.id === next ? h("span", { class: "tag good", style: { marginLeft: ".5em" } }, "chosen") : null), h("td", { class: "num", style: { paddingRight: side ? null : "2rem" } }, see.percent(Math.exp(t.logprob)))] : [h("td", {}), h("td", {})];
    })))));

  const label = (found, side) => found.ids[side] + (side && found.elsewhere ? " of " + found.elsewhere : "");

  const settings = (found) => h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, ""), [0, 1].map((side) => h("th", {}, label(found, side))))),
    h("tbody", {}, Object.entries(NAMES).map(([key, name]) => {
      const differs = found.settings_differ.includes(key);
      return h("tr", {}, h("td", {}, name), [0, 1].map((side) => h("td", { class: "mono" }, differs && side ? h("span", { class: "tag" }, "differs") : null, differs && side ? " " : null, shown(found.settings[side][key]))));
    }), h("tr", {}, h("td", {}, "asked for"), [0, 1].map((side) => h("td", { class: "mono" }, asked(found.sampling[side])))),
    h("tr", {}, h("td", {}, "computed again"), [0, 1].map((side) => {
      const own = found.lit && found.lit.sides[side];
      return h("td", {}, !own ? "—" : own.why ? own.why : [`under ${own.contract}`, " ", see.served(own)]);
    }))));

  const verdict = (found) => {
    const same = found.rows_compared && !found.rows_equal ? "It is the first that has a hash." : found.rows_compared ? `${see.count(found.rows_equal, "row")} of logits before it ${found.rows_equal === 1 ? "is" : "are"} the same, bit for bit.` : "There were no hashes of rows that both chose from.";
    switch (found.what) {
      case null: return ["No bit differs: ", h("b", {}, see.count(found.tokens[0].ids.length, "token")), found.rows_compared ? [" and ", h("b", {}, see.count(found.rows_equal, "row")), " of logits are the same."] : " are the same; no hashes were there to compare."];
      case "prompt": return ["They were not asked the same: the first token that differs is at position ", h("b", {}, String(found.token)), ", in what was given."];
      case "row": return ["The first row of logits that differs is at position ", h("b", {}, String(found.row)), ". ", same];
      case "choice": return ["From the ", h("b", {}, "same bits"), " another token was chosen, at position ", h("b", {}, String(found.token)), ": other parameters or another seed, and not the arithmetic. ", same];
      case "token": return ["Another token stands at position ", h("b", {}, String(found.token)), ". ", same];
      default: return ["The one goes on where the other ended, at position ", h("b", {}, String(found.token)), ". ", same];
    }
  };

  const draw = (found) => {
    const lit = found.lit, isOpened = lit && lit.sides.some((side) => side.top);
    return [
      see.plate("All positions", "", tape(found), see.legend(["chunk", "the same prompt"], found.rows_compared ? ["generated", "rows with the same bits"] : ["cached", "the same tokens"], ["cut", "from the first difference on"])),
      h("div", { class: "plates even" }, [0, 1].map((side) => see.plate(label(found, side), "", strip(found, side)))),
      found.stamps ? see.plate("What differs by the recordings alone", "Hashes of points inside the model, recorded beside some tokens; no model is needed to compare them.", stamped(found.stamps)) : null,
      lit && lit.apart ? see.plate("Where it begins", "Looked for in the order of computing: at the first position whose keys or values differ, from the embedding up.", begins(lit)) : null,
      isOpened ? h("div", { class: "plates even" },
        lit.apart ? see.plate("How far apart, from layer to layer", `The greatest difference of an entry of the residual stream, at position ${lit.position}; no bar: every bit is the same.`, apart(lit, lit.first), h("p", { class: "note" }, "Behind each layer.", see.mark("derived", "both rows computed again"))) : see.plate("How far apart", "", see.missing(lit.why_not)),
        see.plate("What each would say next", `The row at position ${lit.position}.`, said(found, lit))) : null,
      see.plate("Under what", "", h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "settings of both runs" }, settings(found)))];
  };

  see.views.push({
    key: "diff", title: "Two runs, bit by bit",
    build(root) {
      const select = h("select", { id: "beside", class: "ask" }), out = h("div", { class: "plates" }), more = h("span", { class: "note", style: { marginLeft: ".8em" } }), choose = h("p", {}, h("label", { for: "beside" }, "Beside "), select, more);
      root.append(h("div", { class: "plates" }, choose, out));
      let path = null;
      select.addEventListener("change", () => { path = select.value; see.draw(); });
      const option = (kind) => (r) => h("option", { value: `${kind}/${r.id}` }, r.id);
      const options = async (cursor) => {
        const page = see.documents.page, none = { value: null, why: "" };
        const [list, against] = await Promise.all([see.tryGet("requests"), page.against ? see.tryGet("against") : none]);
        const here = list.value ? list.value.requests.filter((r) => r.id !== cursor.told.id && !r.error && r.output_tokens.length) : [], there = against.value ? against.value.requests : [];
        const values = [...there.map((r) => "against/" + r.id), ...here.map((r) => "diff/" + r.id)];
        const wanted = against.value ? "against/" + against.value.beside : page.beside ? "diff/" + page.beside : values[0] || null;
        const isListed = list.value && list.value.requests.some((r) => r.id === cursor.told.id), left = list.value && here.length ? list.value.left_out - !isListed : 0;
        return { here, there, values, left, wanted: values.includes(wanted) ? wanted : values[0] || null, label: against.value && against.value.label, why: list.why || against.why };
      };
      return {
        async draw(cursor, isCurrent) {
          const found = await options(cursor);
          if (!isCurrent()) return;
          if (select.dataset.of !== found.values.join("\n")) {
            select.dataset.of = found.values.join("\n");
            see.fill(select, found.label ? [h("optgroup", { label: "recording " + found.label }, found.there.map(option("against"))), h("optgroup", { label: "this recording" }, found.here.map(option("diff")))] : found.here.map(option("diff")));
          }
          if (!found.values.includes(path)) path = found.wanted;
          choose.hidden = path === null;
          if (path === null) { see.caption(["There is no other run to compare with."]); see.fill(out, see.missing(found.why || "This recording has one request. openwork see ID --record DIR --against ID --against-record OTHER lays a run of another recording beside this one.")); return; }
          select.value = path;
          more.textContent = found.left ? `${see.count(found.left, "other")} of this recording ${found.left === 1 ? "is" : "are"} not listed here.` : "";
          const got = await see.tryGet(path);
          if (!isCurrent()) return;
          if (!got.value) { see.caption([]); see.fill(out, see.missing(got.why)); return; }
          const told = { ...got.value, elsewhere: path.startsWith("against/") ? found.label : null };
          see.caption(verdict(told));
          see.fill(out, draw(told));
        },
      };
    },
  });
})();
