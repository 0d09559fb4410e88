"use strict";
// Window: which steps of the engine are looked at. A live page asks for those around where we are, or where somebody
// went; a file holds those around its request. Above them stands an overview of all steps, which leads there.

(() => {
  const { h } = see;
  const HIGH = 62, COUNT = 400;

  const placeOf = (timeline, cursor) => {
    const found = cursor.engineStep(cursor.position), process = found && timeline.processes.find((each) => each.run === found.step.run);
    return process && process.first !== null ? process.first + found.step.number - process.number : null;
  };
  const holds = ({ first, count }, place) => first <= place && place < first + count;

  see.window = {
    path: "timeline", isPinned: false, scope: "", // "" around the request, "all/" the whole recording

    forget() { Object.assign(this, { path: "timeline", isPinned: false, scope: "" }); },

    // Steps from a place on, of the same stretch or of all; null: those around where we are, again.
    go(first, scope = this.scope) {
      this.isPinned = first !== null;
      this.scope = first === null ? "" : scope;
      this.path = first === null ? "timeline" : `timeline/${this.scope}${first}/${COUNT}`;
      see.draw();
    },

    async get(cursor) {
      const own = await see.tryGet("timeline");
      if (!own.value || !see.documents.isLive) return own;
      if (!this.isPinned) {
        const place = placeOf(own.value, cursor), [, first, count] = this.path.split("/").map(Number);
        if (place === null || holds(own.value.window, place)) this.path = "timeline";
        else if (this.path === "timeline" || !holds({ first, count }, place)) this.path = `timeline/${Math.max(0, place - COUNT / 2)}/${COUNT}`;
      }
      return this.path === "timeline" ? own : see.tryGet(this.path);
    },
  };

  const draw = (canvas, timeline) => {
    const { overview, window: shown } = timeline, { context, width } = see.canvas(canvas, HIGH), ink = see.ink(), total = Math.max(1, shown.total);
    const most = Math.max(1, ...overview.map((each) => each.rows / each.count)), x = (place) => width * place / total, foot = HIGH - 12;
    const chunk = see.pattern(context, "chunk"), vain = see.pattern(context, "vain");
    for (const each of overview) {
      const from = x(each.first), wide = Math.max(1, x(each.first + each.count) - from - (total < width / 3 ? 1 : 0)), tall = (rows) => (foot - 8) * rows / each.count / most;
      let y = foot;
      for (const [rows, fill] of [[each.decode_rows - (each.rejected_rows || 0), ink.generated], [each.rejected_rows || 0, vain], [each.chunk_rows, chunk]]) {
        context.fillStyle = fill; context.fillRect(from, y - tall(rows), wide, tall(rows)); y -= tall(rows);
      }
      context.fillStyle = ink.cut;
      if (each.preempted || each.failed) context.fillRect(from, 0, Math.max(2, wide), 5);
      context.fillStyle = ink.soft;
      if (each.evicted) context.fillRect(from, foot + 2, Math.max(1, wide), 3);
    }
    context.strokeStyle = ink.ink; context.lineWidth = 2;
    context.strokeRect(x(shown.first) + 1, 1, Math.max(4, x(shown.first + shown.count) - x(shown.first) - 2), HIGH - 4);
  };

  // The overview, and what leads along it. ``element`` is made once; ``draw`` follows the timeline.
  see.overview = () => {
    const isLive = () => see.documents.isLive;
    const canvas = h("canvas", { class: "wide" }), said = h("p", { class: "note", "aria-live": "polite" }), back = h("button", { type: "button", class: "tool", hidden: true, onclick: () => see.window.go(null) }, "back to this request"), all = h("button", { type: "button", class: "tool", hidden: true, onclick: () => see.window.go(0, "all/") }, "the whole recording");
    let told = null;
    const move = (first) => told && see.window.go(Math.round(Math.min(Math.max(0, told.window.total - told.window.count), Math.max(0, first))));
    canvas.addEventListener("click", (event) => {
      if (!told || !isLive()) return;
      const box = canvas.getBoundingClientRect();
      move((event.clientX - box.left) / box.width * told.window.total - told.window.count / 2);
    });
    canvas.addEventListener("keydown", (event) => {
      if (!told || !isLive()) return;
      const { first, count, total } = told.window, to = { ArrowLeft: first - count / 2, ArrowRight: first + count / 2, PageUp: first - 5 * count, PageDown: first + 5 * count, Home: 0, End: total }[event.key];
      if (to === undefined) return;
      event.preventDefault(); event.stopPropagation();
      move(to);
    });
    see.tip(canvas, (x, y, box) => {
      if (!told) return null;
      const place = x / box.width * told.window.total, each = told.overview.find((o) => o.first <= place && place < o.first + o.count);
      return each ? `steps ${each.first} to ${each.first + each.count - 1}, ${see.seconds(each.from_s)} to ${see.seconds(each.to_s)}\n${see.count(each.rows, "row")}, ${each.chunk_rows} of prompts` + (each.preempted ? `, ${see.count(each.preempted, "preemption")}` : "") + (each.evicted ? `, ${each.evicted} blocks evicted` : "") + (each.rejected_rows ? `, ${each.rejected_rows} guessed in vain` : "") : null;
    });
    return {
      element: see.plate("All steps in short", "", canvas, h("div", { style: { display: "flex", gap: "1rem", alignItems: "center", marginTop: ".4rem" } }, said, back, all),
        see.legend(["generated", "rows of decoding"], ["chunk", "of prompts"], ["vain", "guessed in vain"]), h("div", { class: "legend" }, h("span", {}, "marks above: preempted, or failed"), h("span", {}, "marks below: blocks evicted"))),
      draw(timeline) {
        told = timeline;
        const { first, count, total } = timeline.window, isWhole = count >= total;
        const words = isWhole ? `All ${see.count(total, "step")} are below.` : `Steps ${first} to ${first + count - 1} of ${total.toLocaleString("en")} are below; ` + (isLive() ? "click, or ← → while this is in focus, for others." : `the other ${(total - count).toLocaleString("en")} are not in this file.`);
        const how = isLive() && !isWhole ? { role: "slider", tabindex: "0", "aria-label": "steps that are shown", "aria-valuemin": 0, "aria-valuemax": total, "aria-valuenow": first, "aria-valuetext": `steps ${first} to ${first + count - 1} of ${total}` } : { role: "img", "aria-label": "all steps in short: " + words };
        for (const name of ["role", "tabindex", "aria-label", "aria-valuemin", "aria-valuemax", "aria-valuenow", "aria-valuetext"]) canvas.removeAttribute(name);
        see.dress(canvas, how);
        canvas.style.cursor = isLive() && !isWhole ? "pointer" : "default";
        said.textContent = words;
        back.hidden = !see.window.isPinned;
        all.hidden = !isLive() || see.window.scope !== "";
        draw(canvas, timeline);
      },
    };
  };
})();
