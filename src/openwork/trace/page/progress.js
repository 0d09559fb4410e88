"use strict";
// Progress: how far the server is with what was asked of it, when that takes longer than a moment.

(() => {
  const { h } = see;
  const AFTER = 400, EVERY = 350, STAGES = { reading: ["Reading the recording", "bytes"], prefill: ["Computing the sequence again", "positions"], "": ["The server computes", ""] };
  let pending = 0, timer = 0, bar = null;

  const draw = (stage, done, total) => {
    const [what, unit] = STAGES[stage] || STAGES[""], isKnown = total > 0;
    const said = isKnown ? `${what}: ${done.toLocaleString("en")} of ${total.toLocaleString("en")} ${unit}` : what + " …";
    bar.hidden = false;
    bar.setAttribute("aria-valuetext", said);
    if (isKnown) bar.setAttribute("aria-valuenow", Math.round(100 * done / total)); else bar.removeAttribute("aria-valuenow");
    see.fill(bar, h("span", { class: "wait-words" }, said), h("span", { class: "wait-line" + (isKnown ? "" : " unknown"), style: { width: isKnown ? 100 * done / total + "%" : null } }));
  };

  const look = async () => {
    if (!pending) return;
    const far = await see.documents.ask("GET", "progress").catch(() => null);
    if (!pending) return;
    draw(far ? far.stage : "", far ? far.done : 0, far ? far.total : 0);
    timer = setTimeout(look, EVERY);
  };

  see.progress = {
    // Around a question to the server; the bar comes when it takes long, and goes with the last answer.
    async during(asked) {
      bar = bar || document.getElementById("wait");
      if (!pending++) timer = setTimeout(look, AFTER);
      try { return await asked; } finally {
        if (!--pending) { clearTimeout(timer); bar.hidden = true; }
      }
    },
  };
})();
