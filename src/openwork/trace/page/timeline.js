"use strict";
// 8 · The timeline of the engine: who was in which step with how many rows, who waited for what, and the memory below.

(() => {
  const { h } = see, { short, ROW } = see.lanes;
  const LISTED = 200;

  const happened = (timeline, own) => {
    const names = new Map(timeline.requests.map((r) => [r.id, r.name])), ours = timeline.events.filter((e) => e.request === own).length;
    const shown = timeline.events.length <= LISTED ? timeline.events : [...timeline.events.filter((e) => e.request === own || e.what !== "admitted")].slice(0, LISTED);
    return [h("table", {}, h("thead", {}, h("tr", {}, ["after", "step", "request", "what", "details"].map((n, i) => h("th", { class: i < 2 ? "num" : null }, n)))),
      h("tbody", {}, shown.map((each) => {
        const { step, time_s: time, request, what, ...more } = each;
        const said = Object.entries(more).filter(([, v]) => v !== null && v !== "").map(([k, v]) => `${k} ${k === "by" ? names.get(v) ?? v : v}`).join(", ");
        return h("tr", { style: { fontWeight: request === own ? 600 : 400 } }, h("td", { class: "num" }, see.seconds(time)), h("td", { class: "num" }, step === null ? "—" : String(step)), h("td", {}, names.has(request) ? short(names.get(request)) : "—"), h("td", {}, what), h("td", {}, said));
      }))), shown.length < timeline.events.length ? h("p", { class: "note" }, `${timeline.events.length - shown.length} more are not listed${ours ? "; all of this request are" : ""}.`) : null];
  };

  const waiting = (timeline) => {
    const total = (r) => Object.values(r.stalls).reduce((sum, s) => sum + s, 0), stalled = timeline.requests.filter((r) => Object.keys(r.stalls).length || r.preemptions).sort((a, b) => total(b) - total(a));
    if (!stalled.length) return h("p", { class: "note" }, "Nobody was left out of a step.");
    return [h("table", {}, h("thead", {}, h("tr", {}, ["request", "left out of steps, in all", ""].map((n) => h("th", {}, n)))), h("tbody", {}, stalled.slice(0, LISTED).map((r) => h("tr", {}, h("td", {}, short(r.name)), h("td", {}, Object.entries(r.stalls).map(([cause, s]) => `${cause} ${see.seconds(s)}`).join(", ")), h("td", { class: "num" }, r.preemptions ? see.count(r.preemptions, "preemption") : ""))))),
      stalled.length > LISTED ? h("p", { class: "note" }, `The ${LISTED} that waited longest, of ${stalled.length}.`) : null];
  };

  const told = ({ timeline, rows, at }, x, y, scrolled) => {
    const step = timeline.steps.findLast((s) => at.x(s.planned_s) <= x + 1), row = y === null ? null : rows[Math.floor((y + scrolled - 3) / ROW)];
    if (!step || x < at.left) return row ? row.request.name : null;
    const mine = (list) => row && (list || []).find((w) => w[0] === row.request.id && w[1] === row.line.index), work = mine(step.works), out = mine(step.left_out), guess = mine(step.guesses);
    return `step ${step.number}: ${see.count(step.rows, "row")}, ${see.seconds(step.elapsed_s)}` + (work ? `\n${work[4]}, positions ${work[2]} to ${work[2] + work[3] - 1}` : out ? `\nleft out: ${out[2]}` : "")
      + (guess ? `\n${see.count(guess[3], "guess", "guesses")}, ${guess[4] === null ? "no result recorded" : guess[4] + " right"}` : "");
  };

  see.views.push({
    key: "timeline", title: "The engine in time",
    build(root) {
      const lanes = h("canvas", { "aria-hidden": "true" }), spacer = h("div", { class: "lanes-all" }, lanes), scroller = h("div", { class: "lanes", tabindex: 0, role: "region", "aria-label": "a line for each sequence" }, spacer);
      const steps = h("canvas", { class: "wide", role: "img" }), more = h("p", { class: "note" }), events = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "what happened" }), waits = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "who waited" }), none = h("div", {}), whole = h("div", { class: "plates" }), overview = see.overview();
      whole.append(overview.element, see.plate("Steps and requests", "A line for each sequence: thick where it was in a step, as tall as it had rows.", scroller, more, steps,
        see.legend(["generated", "decoding, a row"], ["chunk", "a chunk of a prompt"], ["cut", "computed again, or preempted"], ["vain", "guessed in vain"], ["cached", "queued; blocks: cached"], ["both", "blocks: shared"])),
        see.plate("Who waited, and for what", "", waits), see.plate("What happened", "", events));
      root.append(none, whole);
      let drawn = null, own = null, shown = null;
      const paint = () => { if (drawn) see.lanes.drawLanes(lanes, drawn, scroller, own); };
      scroller.addEventListener("scroll", () => requestAnimationFrame(paint));
      see.tip(scroller, (x, y) => drawn && told(drawn, x, y, scroller.scrollTop));
      see.tip(steps, (x) => drawn && told(drawn, x, null, 0));
      return {
        async draw(cursor, isCurrent) {
          const got = await see.window.get(cursor), timeline = got.value;
          if (!isCurrent()) return;
          whole.hidden = !timeline || !timeline.steps.length;
          see.fill(none, whole.hidden ? see.missing(got.why || "There is no step in this recording.") : null);
          if (whole.hidden) { see.caption([]); return; }
          own = see.ownPlace(timeline, cursor);
          const took = timeline.steps.map((s) => s.elapsed_s || 0).sort((a, b) => a - b), preempted = timeline.events.filter((e) => e.what === "preempted").length, found = cursor.engineStep(cursor.position);
          see.caption([see.count(timeline.window.count, "step"), timeline.window.total > timeline.window.count ? ` of ${timeline.window.total.toLocaleString("en")}` : "", ", ", see.count(timeline.requests.length + timeline.window.requests_left_out, "request"), "; half of the steps took at most ", h("b", {}, see.seconds(took[took.length >> 1])), ", the longest ", h("b", {}, see.seconds(took[took.length - 1])), ". ",
            preempted ? see.count(preempted, "preemption") + ". " : "", timeline.replay.is_equal ? "Replaying the schedule makes the same decisions, to the step." : timeline.replay.difference ? "The replay of the schedule differs: " + timeline.replay.difference + "." : ""]);
          overview.draw(timeline);
          const here = timeline.steps.find((s) => found && s.number === found.step.number && s.works.some((w) => w[0] === own));
          drawn = see.lanes.prepare(timeline, own, here, spacer.clientWidth);
          spacer.style.height = drawn.rows.length * ROW + 10 + "px";
          if (shown !== timeline) {
            shown = timeline;
            scroller.scrollTop = Math.max(0, drawn.rows.findIndex((row) => row.request.id === own) * ROW - scroller.clientHeight / 2);
            see.fill(waits, waiting(timeline));
            see.fill(events, happened(timeline, own));
          }
          paint();
          see.lanes.drawSteps(steps, drawn);
          more.textContent = drawn.waited ? `${see.count(drawn.waited, "more", "more")} lived in this time and only waited.` : "";
          steps.setAttribute("aria-label", `rows of ${timeline.window.count} steps, and the memory; the tables below say what happened`);
        },
      };
    },
  });
})();
