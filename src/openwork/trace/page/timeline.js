"use strict";
// 8 · The timeline of the engine: who was in which step with how many rows, who waited for what, and the memory below.

(() => {
  const { h } = see;
  const ROW = 22, LEFT = 190, MEMORY = 110, BUSY = 54;

  const short = (name) => (name.length > 22 ? name.slice(0, 10) + "…" + name.slice(-10) : name);

  // Time on the x axis: each step as wide as it took. Where nothing ran for long, the axis is cut, and says so.
  const scale = (timeline, width) => {
    const { steps } = timeline, ends = steps.map((s) => s.landed_s || s.planned_s + (s.elapsed_s || 0));
    const begin = steps[0].planned_s, cuts = [];
    const busy = steps.reduce((sum, s, i) => sum + ends[i] - s.planned_s, 0), most = Math.max(busy * 0.06, 1e-9);
    let last = ends[0], removed = 0;
    steps.forEach((step, i) => {
      const idle = step.planned_s - last;
      if (idle > 2 * most) { cuts.push({ from: last, to: step.planned_s, removed: idle - most }); removed += idle - most; }
      last = Math.max(last, ends[i]);
    });
    const span = Math.max(1e-9, last - begin - removed);
    const shown = (t) => cuts.reduce((sum, cut) => sum - (t >= cut.to ? cut.removed : t > cut.from ? cut.removed * (t - cut.from) / (cut.to - cut.from) : 0), t - begin);
    return { begin, end: last, cuts, x: (t) => LEFT + (width - LEFT - 10) * shown(t) / span };
  };

  const lines = (timeline) => timeline.requests.flatMap((request) => (request.lines.length ? request.lines : [{ index: 0, spans: [], generated: 0 }]).slice(0, 8).map((line) => ({ request, line }))).slice(0, 60);

  const draw = (canvas, timeline, cursor, own) => {
    const rows = lines(timeline), tall = rows.length * ROW + 26 + BUSY + MEMORY + 30;
    const { context, width } = see.canvas(canvas, tall), ink = see.ink(), { begin, end, cuts, x } = scale(timeline, width);
    const fills = { queued: see.pattern(context, "cached"), preempted: see.pattern(context, "cut") };
    const kinds = { prompt: see.pattern(context, "chunk"), decode: ink.generated, again: see.pattern(context, "cut"), search: ink["brass-fill"], vain: see.pattern(context, "vain") };
    rows.forEach(({ request, line }, r) => {
      const y = r * ROW + 8, isOwn = request.id === own;
      context.fillStyle = isOwn ? ink.ink : ink.soft;
      context.textAlign = "right";
      context.font = (isOwn ? "600 " : "") + "12px " + getComputedStyle(document.body).fontFamily;
      context.fillText(short(request.name) + (request.lines.length > 1 ? " · " + line.index : ""), LEFT - 12, y + 13);
      context.textAlign = "left";
      line.spans.forEach(([since, state], i) => {
        const until = i + 1 < line.spans.length ? line.spans[i + 1][0] : end, from = x(Math.max(begin, since)), to = x(Math.min(end, until));
        if (to <= from || state === "finished") return;
        context.fillStyle = state === "running" ? ink.hair : fills[state] || ink.hair;
        context.fillRect(from, y + (state === "running" ? 9 : 6), to - from, state === "running" ? 2 : 8);
      });
    });
    const place = new Map(rows.map(({ request, line }, r) => [request.id + "/" + line.index, r]));
    const most = Math.max(...timeline.steps.map((s) => s.rows), 1);
    timeline.steps.forEach((step) => {
      const from = x(step.planned_s), wide = Math.max(1, x(step.planned_s + (step.elapsed_s || 0)) - from);
      for (const [request, index, , count, kind] of step.works) {
        const r = place.get(request + "/" + index);
        if (r === undefined) continue;
        const high = kind === "decode" ? 8 : Math.max(8, Math.min(18, 6 + 3 * Math.log2(1 + count)));
        context.fillStyle = kinds[kind] || ink.generated;
        context.fillRect(from, r * ROW + 18 - high / 2, Math.max(1, wide - (wide > 3 ? 0.7 : 0)), high);
      }
      for (const [request, index, , guessed, came] of step.guesses || []) {
        const r = place.get(request + "/" + index);
        if (r === undefined) continue;
        const tall = (n) => Math.min(12, 2 + 2 * Math.log2(1 + n));
        if (came) { context.fillStyle = ink.generated; context.fillRect(from, r * ROW + 14 - tall(came), Math.max(1, wide - 0.7), tall(came)); }
        if (guessed - came) { context.fillStyle = kinds.vain; context.fillRect(from, r * ROW + 22, Math.max(1.5, wide - 0.7), tall(guessed - came) / 1.5); }
      }
    });
    const base = rows.length * ROW + 20 + BUSY;
    context.font = "12px " + getComputedStyle(document.body).fontFamily;
    context.fillStyle = ink.soft; context.textAlign = "right"; context.fillText(`rows of a step, at most ${most}`, LEFT - 12, base - 4); context.textAlign = "left";
    timeline.steps.forEach((step) => {
      const from = x(step.planned_s), wide = Math.max(1, x(step.planned_s + (step.elapsed_s || 0)) - from), tall = BUSY * step.rows / most, chunk = tall * step.chunk_rows / Math.max(1, step.rows);
      context.fillStyle = ink.generated; context.fillRect(from, base - (tall - chunk), wide, tall - chunk);
      context.fillStyle = kinds.prompt; context.fillRect(from, base - tall, wide, chunk);
      if (step.failed) { context.fillStyle = ink.cut; context.fillText("✕", from, base - tall - 2); }
    });
    if (timeline.memory) memory(context, timeline, x, base + 26, ink);
    for (const cut of cuts) {
      const at = (x(cut.from) + x(cut.to)) / 2;
      context.strokeStyle = ink.soft; context.lineWidth = 1; context.setLineDash([2, 3]);
      context.beginPath(); context.moveTo(at, 0); context.lineTo(at, tall - 22); context.stroke(); context.setLineDash([]);
      context.fillStyle = ink.soft; context.textAlign = "center"; context.fillText(see.seconds(cut.to - cut.from) + " idle", at, tall - 6); context.textAlign = "left";
    }
    const found = cursor.engineStep(cursor.position), here = timeline.steps.find((s) => found && s.number === found.step.number && s.works.some((w) => w[0] === own));
    if (here) { context.strokeStyle = ink.brass; context.lineWidth = 1.6; context.beginPath(); context.moveTo(x(here.planned_s), 0); context.lineTo(x(here.planned_s), tall - 22); context.stroke(); }
    context.fillStyle = ink.soft;
    context.fillText(see.seconds(0), LEFT, tall - 6);
    context.textAlign = "right"; context.fillText(see.seconds(end - begin), width - 10, tall - 6); context.textAlign = "left";
    return { rows, x };
  };

  const memory = (context, timeline, x, top, ink) => {
    const { in_time: samples, num_blocks: blocks } = timeline.memory;
    const layers = [["private", "generated"], ["shared", "both"], ["pinned", "diagonal"], ["evictable", "cached"]];
    context.fillStyle = ink.soft; context.textAlign = "right"; context.fillText(`blocks, of ${blocks}`, LEFT - 12, top + 12); context.textAlign = "left";
    context.strokeStyle = ink.line; context.strokeRect(LEFT, top + 0.5, context.canvas.width / (window.devicePixelRatio || 1) - LEFT - 10, MEMORY - 10);
    samples.forEach((sample, i) => {
      const from = Math.max(LEFT, x(sample.time_s)), to = i + 1 < samples.length ? x(samples[i + 1].time_s) : from + 3;
      if (to <= LEFT) return; // before the window
      let y = top + MEMORY - 10;
      for (const [name, kind] of layers) {
        const high = (MEMORY - 10) * (sample[name] || 0) / blocks;
        context.fillStyle = see.poolFill(context, kind === "diagonal" ? "shared" : kind);
        context.fillRect(from, y - high, Math.max(1, to - from), high);
        y -= high;
      }
    });
  };
  const fills = new Map();
  see.poolFill = (context, kind) => {
    const key = kind + document.documentElement.dataset.theme;
    if (!fills.has(key)) fills.set(key, see.pattern(context, kind));
    return fills.get(key);
  };

  const told_of = (step, row) => {
    const own = (step.guesses || []).find((g) => g[0] === row.request.id && g[1] === row.line.index);
    return own ? `\n${see.count(own[3], "guess", "guesses")}, ${own[4] === null ? "no result recorded" : own[4] + " right"}` : "";
  };

  const happened = (timeline, own) => h("table", {}, h("thead", {}, h("tr", {}, ["after", "step", "request", "what", ""].map((n, i) => h("th", { class: i < 2 ? "num" : null }, n)))),
    h("tbody", {}, timeline.events.slice(-400).map((each) => {
      const { step, time_s: time, request, what, ...more } = each, asked = timeline.requests.find((r) => r.id === request);
      const said = Object.entries(more).filter(([, v]) => v !== null && v !== "").map(([k, v]) => `${k} ${k === "by" ? (timeline.requests.find((r) => r.id === v) || { name: v }).name : v}`).join(", ");
      return h("tr", { style: { fontWeight: request === own ? 600 : 400 } }, h("td", { class: "num" }, see.seconds(time)), h("td", { class: "num" }, step === null ? "—" : String(step)), h("td", {}, asked ? short(asked.name) : "—"), h("td", {}, what), h("td", {}, said));
    })));

  see.views.push({
    key: "timeline", title: "The engine in time",
    build(root) {
      const canvas = h("canvas", { class: "wide", role: "img" }), events = h("div", { class: "scroll" }), waits = h("div", {}), none = h("div", {}), whole = h("div", { class: "plates" });
      whole.append(see.plate("Steps and requests", "A line for each sequence: thick where it was in a step, as tall as it had rows.", canvas,
        see.legend(["generated", "decoding, a row"], ["chunk", "a chunk of a prompt"], ["cut", "computed again, or preempted"], ["vain", "below a line: guessed in vain"], ["cached", "queued; blocks: cached"], ["both", "blocks: shared"])),
        see.plate("Who waited, and for what", "", waits), see.plate("What happened", "", events));
      root.append(none, whole);
      let drawn = null, told = null;
      see.tip(canvas, (x, y) => {
        if (!drawn || !told) return null;
        const step = told.steps.findLast((s) => drawn.x(s.planned_s) <= x + 1);
        const row = drawn.rows[Math.floor((y - 4) / ROW)];
        if (!step || x < LEFT) return row ? row.request.name : null;
        const work = row && step.works.find((w) => w[0] === row.request.id && w[1] === row.line.index), out = row && step.left_out.find((w) => w[0] === row.request.id && w[1] === row.line.index);
        return `step ${step.number}: ${see.count(step.rows, "row")}, ${see.seconds(step.elapsed_s)}` + (work ? `\n${work[4]}, positions ${work[2]} to ${work[2] + work[3] - 1}${told_of(step, row)}` : out ? `\nleft out: ${out[2]}` : "");
      });
      return {
        async draw(cursor, isCurrent) {
          const got = await see.tryGet("timeline");
          if (!isCurrent()) return;
          told = got.value;
          whole.hidden = !told || !told.steps.length;
          see.fill(none, whole.hidden ? see.missing(got.why || "There is no step in this recording.") : null);
          if (whole.hidden) { see.caption([]); return; }
          const own = see.ownPlace(told, cursor), took = told.steps.map((s) => s.elapsed_s || 0).sort((a, b) => a - b), preempted = told.events.filter((e) => e.what === "preempted").length;
          see.caption([see.count(told.window.count, "step"), told.window.total > told.window.count ? ` of ${told.window.total}` : "", " around this request, ", see.count(told.requests.length, "request"), "; half of the steps took at most ", h("b", {}, see.seconds(took[took.length >> 1])), ", the longest ", h("b", {}, see.seconds(took[took.length - 1])), ". ",
            preempted ? see.count(preempted, "preemption") + ". " : "", told.replay.is_equal ? "Replaying the schedule makes the same decisions, to the step." : told.replay.difference ? "The replay of the schedule differs: " + told.replay.difference + "." : ""]);
          drawn = draw(canvas, told, cursor, own);
          canvas.setAttribute("aria-label", `${told.window.count} steps and ${told.requests.length} requests; the table below says what happened`);
          const stalled = told.requests.filter((r) => Object.keys(r.stalls).length || r.preemptions);
          see.fill(waits, stalled.length ? h("table", {}, h("tbody", {}, stalled.map((r) => h("tr", {}, h("td", {}, short(r.name)), h("td", {}, Object.entries(r.stalls).map(([cause, s]) => `${cause} ${see.seconds(s)}`).join(", ")), h("td", { class: "num" }, r.preemptions ? see.count(r.preemptions, "preemption") : ""))))) : h("p", { class: "note" }, "Nobody was left out of a step."));
          see.fill(events, happened(told, own));
        },
      };
    },
  });
})();
