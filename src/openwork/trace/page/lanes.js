"use strict";
// Lanes: a line for each sequence over the steps of a window, of which only those in sight are drawn; below them how many
// rows each step had, and where the blocks were. All three share one scale of time.

(() => {
  const ROW = 22, BUSY = 54, MEMORY = 104, NAMES = 190, SMALL = 96;

  const short = (name) => (name.length > 22 ? name.slice(0, 10) + "…" + name.slice(-10) : name);

  // Time on the x axis: each step as wide as it took. Where nothing ran for long, the axis is cut, and says so.
  const scale = (timeline, width) => {
    const { steps } = timeline, ends = steps.map((s) => s.landed_s || s.planned_s + (s.elapsed_s || 0));
    const begin = steps[0].planned_s, cuts = [], left = width < 700 ? SMALL : NAMES;
    const busy = steps.reduce((sum, s, i) => sum + ends[i] - s.planned_s, 0), most = Math.max(busy * 0.06, 1e-9);
    let last = ends[0], removed = 0;
    steps.forEach((step, i) => {
      const idle = step.planned_s - last;
      if (idle > 2 * most) { cuts.push({ from: last, to: step.planned_s, removed: idle - most }); removed += idle - most; }
      last = Math.max(last, ends[i]);
    });
    const span = Math.max(1e-9, last - begin - removed);
    const shown = (t) => cuts.reduce((sum, cut) => sum - (t >= cut.to ? cut.removed : t > cut.from ? cut.removed * (t - cut.from) / (cut.to - cut.from) : 0), t - begin);
    return { begin, end: last, cuts, left, right: width - 10, x: (t) => left + (width - left - 10) * shown(t) / span };
  };

  // Those that were in a step of the window, and our own: the others only waited, and are counted.
  const lanes = (timeline, own) => {
    const works = new Map(), guesses = new Map();
    const add = (map, key, value) => { if (map.has(key)) map.get(key).push(value); else map.set(key, [value]); };
    timeline.steps.forEach((step, i) => {
      for (const [request, index, , count, kind] of step.works) add(works, request + "/" + index, [i, count, kind]);
      for (const [request, index, , guessed, came] of step.guesses || []) add(guesses, request + "/" + index, [i, guessed, came]);
    });
    const all = timeline.requests.flatMap((request) => (request.lines.length ? request.lines : [{ index: 0, spans: [], generated: 0 }]).map((line) => ({ request, line, key: request.id + "/" + line.index })));
    const rows = all.filter((each) => works.has(each.key) || each.request.id === own);
    return { rows: rows.map((each) => ({ ...each, works: works.get(each.key) || [], guesses: guesses.get(each.key) || [] })), waited: all.length - rows.length + timeline.window.requests_left_out };
  };

  const drawLanes = (canvas, drawn, scroller, own) => {
    const { timeline, rows, at } = drawn, high = Math.min(scroller.clientHeight, rows.length * ROW + 10), first = Math.floor(scroller.scrollTop / ROW);
    const { context } = see.canvas(canvas, Math.max(ROW, high)), ink = see.ink(), font = "12px " + getComputedStyle(document.body).fontFamily, shift = scroller.scrollTop;
    const fills = { queued: see.pattern(context, "cached"), preempted: see.pattern(context, "cut") };
    const kinds = { prompt: see.pattern(context, "chunk"), decode: ink.generated, again: see.pattern(context, "cut"), search: ink["brass-fill"], vain: see.pattern(context, "vain") };
    const tall = (n) => Math.min(12, 2 + 2 * Math.log2(1 + n));
    for (let r = first; r < Math.min(rows.length, first + Math.ceil(high / ROW) + 1); r++) {
      const { request, line, works, guesses } = rows[r], y = r * ROW + 4 - shift, isOwn = request.id === own;
      if (isOwn) { context.fillStyle = ink.hair; context.fillRect(0, y - 1, at.right + 10, ROW); }
      context.font = (isOwn ? "600 " : "") + font;
      context.fillStyle = isOwn ? ink.ink : ink.soft;
      context.textAlign = "right";
      context.fillText((at.left < NAMES ? request.name.slice(-9) : short(request.name)) + (request.lines.length > 1 ? " · " + line.index : ""), at.left - 12, y + 13);
      context.textAlign = "left";
      line.spans.forEach(([since, state], i) => {
        const until = i + 1 < line.spans.length ? line.spans[i + 1][0] : at.end, from = Math.max(at.left, at.x(Math.max(at.begin, since))), to = at.x(Math.min(at.end, until));
        if (to <= from || state === "finished") return;
        context.fillStyle = state === "running" ? ink.line : fills[state] || ink.line;
        context.fillRect(from, y + (state === "running" ? 8 : 5), to - from, state === "running" ? 2 : 8);
      });
      const wide = (step) => Math.max(1, at.x(step.planned_s + (step.elapsed_s || 0)) - at.x(step.planned_s));
      for (const [i, count, kind] of works) {
        const step = timeline.steps[i], w = wide(step), h = kind === "decode" ? 8 : Math.max(8, Math.min(18, 6 + 3 * Math.log2(1 + count)));
        context.fillStyle = kinds[kind] || ink.generated;
        context.fillRect(at.x(step.planned_s), y + 9 - h / 2, Math.max(1, w - (w > 3 ? 0.7 : 0)), h);
      }
      for (const [i, guessed, came] of guesses) {
        const step = timeline.steps[i], w = wide(step), from = at.x(step.planned_s);
        if (came) { context.fillStyle = ink.generated; context.fillRect(from, y + 5 - tall(came) / 2, Math.max(1, w - 0.7), tall(came) / 2); }
        if (guessed - (came || 0)) { context.fillStyle = kinds.vain; context.fillRect(from, y + 13, Math.max(1.5, w - 0.7), tall(guessed - (came || 0)) / 1.8); }
      }
    }
    cuts(context, drawn, high);
    here(context, drawn, high);
  };

  const here = (context, { at, step }, high) => {
    if (!step) return;
    context.strokeStyle = see.ink().brass; context.lineWidth = 1.6;
    context.beginPath(); context.moveTo(at.x(step.planned_s), 0); context.lineTo(at.x(step.planned_s), high); context.stroke();
  };

  const cuts = (context, { at }, high) => {
    context.strokeStyle = see.ink().soft; context.lineWidth = 1; context.setLineDash([2, 3]);
    for (const cut of at.cuts) { const x = (at.x(cut.from) + at.x(cut.to)) / 2; context.beginPath(); context.moveTo(x, 0); context.lineTo(x, high); context.stroke(); }
    context.setLineDash([]);
  };

  const drawSteps = (canvas, drawn) => {
    const { timeline, at } = drawn, all = BUSY + 12 + (timeline.memory ? MEMORY + 12 : 0) + 20, { context } = see.canvas(canvas, all), ink = see.ink(), most = Math.max(...timeline.steps.map((s) => s.rows), 1);
    const chunks = see.pattern(context, "chunk"), vain = see.pattern(context, "vain"), foot = BUSY;
    const label = (words, y) => { context.fillStyle = ink.soft; context.textAlign = "right"; words.forEach((word, i) => context.fillText(word, at.left - 12, y + 13 * i)); context.textAlign = "left"; };
    label(["rows of a step,", "at most " + most], foot - 16);
    for (const step of timeline.steps) {
      const from = at.x(step.planned_s), wide = Math.max(1, at.x(step.planned_s + (step.elapsed_s || 0)) - from), lost = (step.guesses || []).reduce((sum, g) => sum + (g[4] === null ? 0 : g[3] - g[4]), 0);
      let y = foot;
      for (const [rows, fill] of [[step.rows - step.chunk_rows, ink.generated], [step.chunk_rows, chunks]]) { const high = (BUSY - 6) * rows / most; context.fillStyle = fill; context.fillRect(from, y - high, wide, high); y -= high; }
      if (lost) { const high = (BUSY - 6) * lost / most; context.fillStyle = vain; context.fillRect(from, y, wide, Math.min(high, foot - y)); }
      if (step.failed) { context.fillStyle = ink.cut; context.fillText("✕", from, y - 2); }
    }
    if (timeline.memory) memory(context, timeline, at, foot + 14, ink, label);
    cuts(context, drawn, all - 18);
    here(context, drawn, all - 18);
    context.fillStyle = ink.soft;
    for (const cut of at.cuts) { context.textAlign = "center"; context.fillText(see.seconds(cut.to - cut.from) + " idle", (at.x(cut.from) + at.x(cut.to)) / 2, all - 4); }
    context.textAlign = "left"; context.fillText(see.seconds(at.begin), at.left, all - 4);
    context.textAlign = "right"; context.fillText(see.seconds(at.end), at.right, all - 4); context.textAlign = "left";
  };

  // Up to the most that was held, not to all there is: ten blocks of a thousand are to be seen too.
  const memory = (context, timeline, at, top, ink, label) => {
    const { in_time: samples, num_blocks: blocks } = timeline.memory, layers = [["private", "generated"], ["shared", "both"], ["pinned", "shared"], ["evictable", "cached"]];
    const sum = (s) => layers.reduce((total, [name]) => total + (s[name] || 0), 0), most = Math.max(1, ...samples.map(sum)), high = MEMORY - 6;
    label(["blocks,", `at most ${most}`, `of ${blocks}`], top + 12);
    context.strokeStyle = ink.line; context.strokeRect(at.left, top + 0.5, at.right - at.left, high);
    samples.forEach((sample, i) => {
      const from = Math.max(at.left, at.x(sample.time_s)), to = Math.min(at.right, i + 1 < samples.length ? at.x(samples[i + 1].time_s) : at.right);
      if (to <= from) return; // before the window
      let y = top + high;
      for (const [name, kind] of layers) {
        const tall = high * (sample[name] || 0) / most;
        context.fillStyle = see.poolFill(context, kind);
        context.fillRect(from, y - tall, Math.max(1, to - from + 0.3), tall);
        y -= tall;
      }
    });
  };

  const fills = new Map();
  see.poolFill = (context, kind) => {
    const key = kind + document.documentElement.dataset.theme;
    if (!fills.has(key)) fills.set(key, see.pattern(context, kind));
    return fills.get(key);
  };

  see.lanes = {
    ROW,
    // Everything that drawing and pointing need of a timeline: made once for each, drawn as often as it is scrolled.
    prepare(timeline, own, step, width) { return { timeline, step, ...lanes(timeline, own), at: scale(timeline, width) }; },
    drawLanes, drawSteps, short,
  };
})();
