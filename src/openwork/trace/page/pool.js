"use strict";
// The pool in time: a row for each block, a column for each step, from the moves that a replay of the schedule saw.

(() => {
  const { h } = see;

  const MOST = 256; // blocks that are drawn

  // The blocks that are drawn, in their order: all, or those of this request and those that something happened to.
  const chosen = (memory, ours) => {
    if (memory.num_blocks <= MOST) return Array.from({ length: memory.num_blocks }, (_, b) => b);
    const found = new Set(ours);
    for (const [, what, block] of memory.moves) { if (found.size >= MOST) break; if (what === "evict" || what === "copy" || what === "share") found.add(block); }
    for (const [, , block] of memory.moves) { if (found.size >= MOST) break; found.add(block); }
    for (let b = 0; found.size < MOST; b++) found.add(b);
    return [...found].sort((a, b) => a - b).slice(0, MOST);
  };

  // The state of the drawn blocks at every column: moves are followed from the state at the beginning.
  const follow = (timeline, own, ours) => {
    const { memory, window } = timeline, columns = window.count, held = new Set(ours), blocks = chosen(memory, ours);
    const now = memory.start.map(([state], b) => ({ state, who: held.has(b) && state !== "free" && state !== "cached" ? new Set([own]) : null }));
    const shown = [], moves = [];
    let next = 0;
    for (let c = 0; c < columns; c++) {
      const place = window.first + c;
      moves.push([]);
      while (next < memory.moves.length && memory.moves[next][0] <= place) {
        const [step, what, block, request, , , , source, cause, state] = memory.moves[next++];
        const holders = now[block].who || new Set();
        if (what === "take" || what === "copy") holders.clear();
        if (["take", "copy", "share"].includes(what)) holders.add(request);
        if (what === "give") holders.delete(request);
        if (state === "free" || state === "cached") holders.clear();
        now[block] = { state, who: holders };
        moves[c].push({ step, what, block, request, source, cause, state });
      }
      shown.push(blocks.map((b) => {
        const { state, who } = now[b];
        return state === "free" ? "free" : state === "cached" ? "cached" : state === "shared" ? "both" : who && who.has(own) ? "generated" : "other";
      }));
    }
    return { shown, moves, blocks };
  };

  // What the sequence held when the window began.
  const heldAtFirst = (timeline, cursor) => {
    const process = timeline.processes.find((each) => each.first !== null && each.first <= timeline.window.first), number = process && process.number + timeline.window.first - process.first;
    const before = cursor.told.steps.filter((step) => process && step.run === process.run && step.number < number).pop();
    const work = before && before.works.find((each) => each.index === cursor.line.index);
    return work ? cursor.whole(before, work).blocks : [];
  };

  see.ownPlace = (timeline, cursor) => {
    const found = timeline.requests.find((each) => each.name === cursor.told.id);
    return found ? found.id : null;
  };

  see.pool = (timeline, cursor, found) => {
    if (!timeline.memory) return see.missing("The schedule of this recording could not be replayed" + (timeline.replay.difference ? ": " + timeline.replay.difference : ", so it is not known where blocks were") + ".");
    const own = see.ownPlace(timeline, cursor), { memory, window } = timeline, now = found ? found.work.blocks : [];
    const { shown, moves, blocks } = follow(timeline, own, [...new Set([...heldAtFirst(timeline, cursor), ...now])]);
    const row = new Map(blocks.map((block, i) => [block, i]));
    const here = timeline.steps.findIndex((step) => found && step.number === found.step.number && (step.works.some((w) => w[0] === own)));
    const canvas = h("canvas", { class: "wide", role: "img", "aria-label": `${blocks.length} of ${memory.num_blocks} blocks over ${window.count} steps` });
    const wasted = memory.in_time.find((s) => s.step === window.first + here) || memory.in_time.filter((s) => s.step <= window.first + Math.max(0, here)).pop();
    Promise.resolve().then(() => { // when it stands on the page
      const tall = Math.max(120, Math.min(420, blocks.length * 7)), { context, width } = see.canvas(canvas, tall + 22), ink = see.ink();
      const dx = width / window.count, dy = tall / blocks.length, names = ["free", "cached", "other", "both", "generated"];
      const fills = Object.fromEntries(names.map((n) => [n, n === "free" ? ink.sheet : see.pattern(context, n)]));
      for (let c = 0; c < window.count; c++) {
        let from = 0;
        for (let b = 1; b <= blocks.length; b++) {
          if (b < blocks.length && shown[c][b] === shown[c][from]) continue;
          context.fillStyle = fills[shown[c][from]];
          context.fillRect(c * dx, from * dy, dx + 0.5, (b - from) * dy);
          from = b;
        }
        for (const move of moves[c]) {
          if ((move.what !== "evict" && move.what !== "copy") || !row.has(move.block)) continue;
          context.strokeStyle = move.what === "evict" ? ink.cut : ink.ink;
          context.lineWidth = 1.5;
          context.strokeRect(c * dx + 0.5, row.get(move.block) * dy + 0.5, Math.max(3, dx - 1), Math.max(2, dy - 1));
        }
      }
      context.strokeStyle = ink.line; context.lineWidth = 1; context.strokeRect(0.5, 0.5, width - 1, tall - 1);
      if (here >= 0) { context.strokeStyle = ink.brass; context.lineWidth = 2; context.strokeRect(here * dx, 0, Math.max(3, dx), tall); }
      context.fillStyle = ink.soft;
      context.fillText("step " + timeline.steps[0].number, 2, tall + 15);
      context.textAlign = "right"; context.fillText("step " + timeline.steps[timeline.steps.length - 1].number, width - 2, tall + 15); context.textAlign = "left";
    });
    const at = (x, y, box) => ({ c: Math.min(window.count - 1, Math.max(0, Math.floor(x / box.width * window.count))), b: Math.floor(y / Math.max(1, box.height - 22) * blocks.length) });
    const names = { free: "free", cached: "cached, held by nobody", other: "another request's", both: "shared by several", generated: "this request's" };
    see.tip(canvas, (x, y, box) => {
      const { c, b } = at(x, y, box);
      if (b < 0 || b >= blocks.length) return null;
      const moved = moves[c].filter((m) => m.block === blocks[b]).map((m) => `\n${m.what}${m.cause ? ": " + m.cause : ""}${m.source === null || m.source === undefined ? "" : " of block " + m.source}`).join("");
      return `step ${timeline.steps[c].number} · block ${blocks[b]}: ${names[shown[c][b]]}${moved}`;
    });
    canvas.addEventListener("click", (event) => {
      const box = canvas.getBoundingClientRect(), step = timeline.steps[at(event.clientX - box.left, 0, box).c];
      const work = step.works.find((w) => w[0] === own && w[1] === see.cursor.line.index);
      if (work) see.cursor.set({ position: work[2] + work[3] - 1 });
    });
    const column = here >= 0 ? moves[here] : [];
    return [canvas, blocks.length < memory.num_blocks ? h("p", { class: "note" }, `${blocks.length} of ${memory.num_blocks} blocks: those of this request, and others that something happened to.`) : null, see.legend(["generated", "this request's"], "both", "other", "cached", "free"), h("div", { class: "legend" }, h("span", {}, "framed in rose: evicted"), h("span", {}, "framed in ink: copied")),
      wasted ? h("div", { style: { marginTop: ".9rem" } }, see.facts(["free", String(wasted.free), "derived", "by replaying the schedule"], ["cached, may go", String(wasted.evictable), "derived"], ["held by one", String(wasted.private), "derived"], ["shared", String(wasted.shared), "derived"], ["slots held and empty", String(wasted.wasted), "derived"])) : null,
      column.length ? h("p", { class: "note", style: { marginTop: ".7rem" } }, `In this step: ${column.slice(0, 12).map((m) => `${m.what} block ${m.block}${m.cause ? " (" + m.cause + ")" : ""}`).join(", ")}.`) : null];
  };
})();
