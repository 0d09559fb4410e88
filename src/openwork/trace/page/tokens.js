"use strict";
// 4 · The strip of tokens: how sure the model was of each, what else it might have said, and what was cut away.

(() => {
  const { h, svg } = see;
  const branches = new Map(); // request/sequence -> branches
  const WINDOW = 500;

  const chip = (cursor, strip, p) => {
    const place = p - cursor.promptLength, surprise = strip && place >= 0 ? -strip.logprob[place] : null;
    const depth = surprise === null ? 0 : Math.min(1, surprise / 5), text = cursor.text(p);
    return h("button", { type: "button", class: place < 0 ? "given" : see.guesses.isRight(cursor, p) ? "foretold" : "", "aria-pressed": p === cursor.position + 1 ? "true" : "false",
      title: `position ${p}` + (surprise !== null ? `: ${see.percent(Math.exp(-surprise))}, rank ${strip.rank[place]}, entropy ${see.number(strip.entropy[place])} nats` : place < 0 ? ", of the prompt" : ""),
      style: surprise === null ? null : { boxShadow: `inset 0 -${(2 + 8 * depth).toFixed(1)}px 0 color-mix(in srgb, var(--brass-fill) ${Math.round(18 + 62 * depth)}%, transparent)` },
      onclick: () => see.cursor.set({ position: p - 1 }) },
      text === null ? `#${cursor.id(p)} ` : text.replaceAll("\n", "↵\n"));
  };

  const alternatives = (cursor, row, fork, busy) => {
    const high = Math.max(...row.top.map((t) => Math.exp(t.logprob)));
    const canFork = see.documents.page.can_fork && row.next_is === "chosen" && cursor.told.has_tokens;
    return h("div", { class: "scroll", style: { maxHeight: "none" } }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", { class: "num" }, "rank"), h("th", {}, "token"), h("th", { class: "num" }, "Pr", see.mark("measured", "softmax of the row, computed again")), h("th", { style: { width: "28%" } }, ""),
        h("th", { class: "num" }, "at the draw", see.mark("derived", "after penalties, temperature and cuts")), h("th", {}, ""))),
      h("tbody", {}, row.top.slice(0, 16).concat(row.top.slice(16).filter((t) => t.id === row.next)).map((t) => {
        const p = Math.exp(t.logprob), isChosen = t.id === row.next;
        return h("tr", {}, h("td", { class: "num" }, String(t.rank)),
          h("td", {}, isChosen ? h("b", {}, see.token(t.text, t.id)) : see.token(t.text, t.id), isChosen ? h("span", { class: "tag good", style: { marginLeft: ".5em" } }, row.next_is) : null),
          h("td", { class: "num" }, see.percent(p)),
          h("td", {}, svg("svg", { width: "100%", height: 11, "aria-hidden": "true" }, svg("rect", { width: `${100 * p / high}%`, height: 11, fill: t.cut ? "url(#p-cut)" : "url(#p-weight)" }))),
          h("td", { class: "num" }, t.cut ? h("span", { class: "tag" }, t.cut === "temperature 0" ? "greedy" : "cut by " + t.cut) : t.share === undefined ? "" : see.percent(t.share)),
          h("td", { class: "num" }, canFork && !isChosen ? h("button", { type: "button", class: "tool fork", disabled: busy, "aria-label": "what if it had said " + see.plainToken(t.text, t.id), onclick: () => fork(t) }, "what if") : ""));
      }))));
  };

  const branchLines = (cursor) => (branches.get(cursor.request + "/" + cursor.sequence) || []).map((branch) => {
    const first = Math.max(0, branch.position - 12);
    const before = [];
    for (let p = first; p < branch.position; p++) before.push(h("span", { class: "given" }, cursor.text(p) === null ? "" : cursor.text(p).replaceAll("\n", "↵\n")));
    return h("div", { class: "branch-line" }, h("h4", {}, `Branch at position ${branch.position}: `, see.token(branch.texts[0], branch.ids[0]), " instead of ", see.token(branch.instead.text, branch.instead.id),
      ` · ${see.count(branch.ids.length, "token")}, ${branch.finish_reason}`, branch.logprob === null ? "" : ` · log Pr of what followed ${see.number(branch.logprob, 4)}`),
      h("p", { class: "strip" }, "… ", before, branch.texts.map((text, i) => h("span", { class: "branch", title: `position ${branch.position + i}` }, text === null ? `#${branch.ids[i]} ` : text.replaceAll("\n", "↵\n")))));
  });

  see.views.push({
    key: "tokens", title: "The strip of tokens",
    build(root) {
      const strips = h("div", { class: "strip" }), side = h("div", {}), facts = h("div", {}), cuts = h("div", {}), below = h("div", { "aria-live": "polite" }), guessed = h("div", {});
      root.append(h("div", { class: "plates" },
        see.plate("What was given, and what was said", "The stronger the line under a token, the less likely the model held it. Click a token, or step with the arrows.", strips, below),
        h("div", { class: "plates two" }, see.plate("What else it might have said", "", side), h("div", { class: "plates" }, see.plate("How sure it was", "", facts), see.plate("What was cut away", "Of the model's own distribution, by the first rule that took it.", cuts))), guessed));
      let busy = false;
      const fork = async (cursor, row, token) => {
        busy = true;
        see.fill(below, h("p", { class: "note" }, "The engine goes on from there …"));
        try {
          const branch = await see.documents.ask("POST", "fork", { sequence: cursor.sequence, position: row.position + 1, token: token.id });
          const key = cursor.request + "/" + cursor.sequence, kept = branches.get(key) || [];
          const own = row.top.find((t) => t.id === row.next) || { id: row.next, text: cursor.text(row.position + 1) };
          branches.set(key, [{ ...branch, position: row.position + 1, instead: own }, ...kept].slice(0, 6));
          busy = false;
          see.draw();
        } catch (error) {
          busy = false;
          see.fill(below, see.missing(error.message));
        }
      };
      return {
        async draw(cursor, isCurrent) {
          const first = Math.max(0, cursor.position - WINDOW / 2), end = Math.min(cursor.promptLength + cursor.line.ids.length, first + WINDOW);
          const [row, strip] = await Promise.all([see.tryGet(`row/${cursor.sequence}/${cursor.position}`), see.tryGet(`strip/${cursor.sequence}`)]);
          if (!isCurrent()) return;
          const chips = [];
          for (let p = first; p < end; p++) chips.push(...see.guesses.vain(cursor, p), chip(cursor, strip.value, p));
          see.fill(strips, first ? h("span", { class: "note" }, `… ${first} tokens before … `) : null, chips, end < cursor.promptLength + cursor.line.ids.length ? h("span", { class: "note" }, " … more after") : null);
          const sum = strip.value && strip.value.sum, count = cursor.line.ids.length, proved = strip.value ? strip.value.served.filter((each) => each === true).length : 0;
          see.caption(row.value && row.value.next !== null ? ["Before position ", h("b", {}, String(cursor.position + 1)), " the model had ", h("b", {}, see.number(row.value.entropy) + " nats"), " of doubt over ",
            see.count(cursor.shape.vocab, "token"), "; ", see.quoted(cursor.text(cursor.position + 1), row.value.next), row.value.next_is === "chosen" ? " was drawn." : " was given."] : ["Nothing follows this position."]);
          const ahead = see.guesses.table(cursor);
          guessed.hidden = !ahead;
          see.fill(guessed, ahead);
          if (!row.value) { see.fill(side, see.missing(row.why)); see.fill(facts); see.fill(cuts); return; }
          see.fill(side, alternatives(cursor, row.value, (t) => fork(cursor, row.value, t), busy), see.documents.page.can_fork ? null : h("p", { class: "note" }, "“What if” needs the engine: open this recording with openwork see, without --html."));
          const own = row.value.top.find((t) => t.id === row.value.next);
          see.fill(facts, see.facts(own && ["log Pr of the token", see.number(own.logprob, 4), "measured"], own && ["rank", String(own.rank), "measured"], ["entropy", see.number(row.value.entropy) + " nats", "derived"],
            ["margin", see.number(row.value.margin) + " nats", "derived", "between the two likeliest"], ["log Pr of the whole", strip.value ? see.number(sum, 5) : "—", "derived", "sum over what was generated"],
            ["perplexity", strip.value && count ? see.number(Math.exp(-sum / count), 4) : "—", "derived", "of what was generated"], strip.value ? ["rows with the bits that were served", h("span", {}, String(proved), h("small", {}, ` of ${count}`)), "measured", "hashes of rows computed again, beside those recorded"] : null),
            h("p", { class: "note", style: { marginTop: ".8rem" } }, "Asked for: " + Object.entries(cursor.told.sampling).map(([k, v]) => `${k} ${typeof v === "object" ? JSON.stringify(v) : v}`).join(", ") + (cursor.told.constraint ? `, a constraint (${cursor.told.constraint})` : "") + ".")),
          see.fill(cuts, row.value.cut === null ? h("p", { class: "note" }, "Nothing is drawn inside a prompt.") : row.value.cut.length ? h("table", {}, row.value.cut.map((each) => h("tr", {}, h("td", {}, h("span", { class: "tag" }, each.by)), h("td", { class: "num" }, see.count(each.tokens, "token")), h("td", { class: "num" }, see.percent(each.mass))))) : h("p", { class: "note" }, "Nothing: every token could be drawn."),
            row.value.unmasked ? h("p", { class: "note" }, row.value.unmasked) : null);
          see.fill(below, branchLines(cursor));
        },
      };
    },
  });
})();
