"use strict";
// 3 · The state of the cache: what this step adds to it, which blocks hold it, and what became of the whole pool.

(() => {
  const { h, svg } = see;

  // The block table: each block a box of slots, in the pattern of where its keys and values came from.
  const table = (cursor, work, size) => {
    const count = cursor.position + 1, slot = Math.max(5, Math.min(13, Math.floor(208 / size))), width = slot * size;
    const blocks = Math.ceil(Math.max(count, work ? work.blocks.length * size : 0) / size);
    const first = Math.max(0, Math.floor(cursor.position / size) - 23);
    const boxes = [];
    for (let b = first; b < blocks; b++) {
      const cells = [];
      for (let i = 0; i < size; i++) {
        const p = b * size + i, isHeld = p < count;
        cells.push(svg("rect", { x: i * slot, y: 0, width: slot - 1, height: 22, fill: isHeld ? `url(#p-${cursor.kind(p)})` : "url(#p-free)", stroke: isHeld ? "none" : "var(--line)" },
          svg("title", {}, isHeld ? `position ${p}: ${see.plainToken(cursor.text(p), cursor.id(p))}` : `slot ${i}: held, and empty`)));
        if (p === cursor.position) cells.push(svg("rect", { x: i * slot - 1.5, y: -2.5, width: slot + 2, height: 27, fill: "none", stroke: "var(--brass)", "stroke-width": 2.4 }));
      }
      const physical = work && b < work.blocks.length ? work.blocks[b] : null;
      boxes.push(h("div", { style: { margin: "0 .9rem .8rem 0" } },
        h("div", { class: "note", style: { display: "flex", justifyContent: "space-between" } }, h("span", {}, `${b * size}–${b * size + size - 1}`), h("b", {}, physical === null ? "—" : "block " + physical)),
        svg("svg", { width: width + 4, height: 28, viewBox: `-2 -3 ${width + 4} 28`, role: "img", "aria-label": `positions ${b * size} to ${Math.min(count, b * size + size) - 1} in block ${physical}` }, cells)));
    }
    return h("div", {}, first ? h("p", { class: "note" }, `${first} earlier blocks are not drawn.`) : null, h("div", { style: { display: "flex", flexWrap: "wrap" } }, boxes));
  };

  const equation = (cursor, found) => {
    const isFill = cursor.step < 0 || (found && found.work.count > 1), p = cursor.position;
    const line = (...parts) => h("p", { style: { font: "400 22px/1.6 var(--serif)", margin: ".2rem 0 1rem" } }, parts);
    const sub = (x) => h("sub", { style: { fontSize: "13px" } }, x);
    if (isFill) {
      const first = found ? found.work.start : 0, end = found ? found.work.start + found.work.count : p + 1;
      return line("cache", sub(String(Math.max(0, cursor.step))), " ⊇ { (k", sub("j"), ", v", sub("j"), `) : j = ${first} … ${end - 1} }`, h("span", { class: "note" }, `   ${see.count(end - first, "position")} in one step${cursor.step > 0 ? ": what had been forgotten is computed again" : ""}`));
    }
    return line("cache", sub(String(cursor.step)), " = cache", sub(String(cursor.step - 1)), " + (k", sub(String(p)), ", v", sub(String(p)), ")",
      h("span", { class: "note" }, "   of ", see.token(cursor.text(p), cursor.id(p))));
  };

  const story = (cursor, number, size) => h("table", {},
    h("thead", {}, h("tr", {}, ["step", "after", "what", "blocks", "cause"].map((name, i) => h("th", { class: i < 2 ? "num" : null }, name)))),
    h("tbody", {}, cursor.told.story.filter((each) => each.index === cursor.line.index || each.index === 0).map((each) =>
      h("tr", { style: { background: each.step === number ? "var(--shade)" : "" }, "aria-current": each.step === number ? "step" : null },
        h("td", { class: "num" }, each.step === null ? "—" : String(each.step)), h("td", { class: "num" }, see.seconds(each.time_s)), h("td", {}, h("b", {}, each.what)),
        h("td", { class: "num", style: { textAlign: "left" } }, each.blocks ? (each.what === "copy" ? each.blocks.join(" → ") : each.blocks.slice(0, 8).join(" ") + (each.blocks.length > 8 ? ` and ${each.blocks.length - 8} more` : "")) : ""),
        h("td", {}, each.cause)))));

  see.views.push({
    key: "cache", title: "The cache",
    build(root) {
      const now = h("div", {}), facts = h("div", {}), pool = h("div", {}), told = h("div", { class: "scroll" });
      root.append(h("div", { class: "plates" }, see.plate("This step", "", now, see.legend("shared", "chunk", "generated", ["free", "empty slot"]), facts),
        see.plate("The whole pool in time", "Each row is a block, each column a step of the engine; click a column's step of this request to go there.", pool),
        see.plate("What was taken, shared, copied, given back, and why", "", told)));
      return {
        async draw(cursor, isCurrent) {
          const timeline = await see.window.get(cursor);
          if (!isCurrent()) return;
          const found = cursor.engineStep(cursor.position), size = cursor.told.block_size || 16, work = found && found.work;
          const held = work ? work.blocks.length * size : null, used = cursor.position + 1, bytes = cursor.shape && cursor.shape.kv_token_bytes;
          see.caption([cursor.step < 0 ? "The prompt fills the cache; decoding then adds one key and value a layer and head for each token." : ["After step ", h("b", {}, String(cursor.step + 1)),
            " the cache of this sequence holds ", h("b", {}, String(used)), " positions", work ? ` in ${see.count(work.blocks.length, "block")}` : "", ". A block that others hold too is never written to: it is copied first."]]);
          see.fill(now, equation(cursor, found), table(cursor, work, size));
          see.fill(facts, h("div", { style: { marginTop: "1rem" } }, see.facts(["positions held", String(used), "measured"], held !== null && ["slots held and empty", String(Math.max(0, held - used)), "derived", "slots of its blocks less positions"],
            bytes && ["keys and values", see.scaled(used * bytes, "B"), "derived", "positions times bytes of one token, all layers"], bytes && ["this step added", see.scaled(bytes, "B"), "derived"])));
          see.fill(pool, timeline.value ? see.pool(timeline.value, cursor, found) : see.missing(timeline.why));
          see.fill(told, story(cursor, found && found.step.number, size));
        },
      };
    },
  });
})();
