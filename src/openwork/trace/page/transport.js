"use strict";
// transport: the strip of all positions below every view, what moves along it, and the keys.

(() => {
  const { h } = see;
  const scrub = () => document.getElementById("scrub");

  see.transport = {
    open() {
      const at = (id) => document.getElementById(id);
      at("back").addEventListener("click", () => see.cursor.set({ position: see.cursor.position - 1 }));
      at("forth").addEventListener("click", () => see.cursor.set({ position: see.cursor.position + 1 }));
      at("play").addEventListener("click", () => see.cursor.play());
      at("start").addEventListener("click", () => see.cursor.set({ position: see.cursor.first }));
      at("end").addEventListener("click", () => see.cursor.set({ position: see.cursor.last }));
      at("sequence").addEventListener("change", (event) => see.cursor.set({ sequence: Number(event.target.value) }));
      at("layer").addEventListener("change", (event) => see.cursor.set({ layer: Number(event.target.value) }));
      at("head").addEventListener("change", (event) => see.cursor.set({ head: Number(event.target.value) }));
      at("jump").addEventListener("keydown", (event) => {
        if (event.key === "Enter") { this.jump(event.target.value); event.target.blur(); }
        if (event.key === "Escape") event.target.blur();
        event.stopPropagation();
      });
      const move = (event) => {
        const box = scrub().getBoundingClientRect(), share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
        see.cursor.set({ position: Math.round(share * see.cursor.last) });
      };
      scrub().addEventListener("pointerdown", (event) => { scrub().setPointerCapture(event.pointerId); move(event); });
      scrub().addEventListener("pointermove", (event) => { if (event.buttons) move(event); });
      scrub().addEventListener("keydown", (event) => {
        const big = { PageUp: -10, PageDown: 10 }[event.key];
        if (big) { event.preventDefault(); see.cursor.set({ position: see.cursor.position + big }); }
      });
      document.addEventListener("keydown", (event) => this.key(event));
      see.tip(scrub(), (x, y, box) => {
        if (!see.cursor.told) return null;
        const p = Math.round(x / box.width * see.cursor.last);
        return `${p}: ${see.plainToken(see.cursor.text(p), see.cursor.id(p))}`;
      });
    },

    // A number is a position; anything else is looked for in the text, from here on and then from the beginning.
    jump(words) {
      const cursor = see.cursor, wanted = words.trim();
      if (!wanted) return;
      if (/^\d+$/.test(wanted)) { cursor.set({ position: Number(wanted) }); return; }
      const total = cursor.last + 1;
      for (let i = 1; i <= total; i++) {
        const p = (cursor.position + i) % total, text = cursor.text(p);
        if (text !== null && text !== undefined && text.toLowerCase().includes(wanted.toLowerCase())) { cursor.set({ position: p }); return; }
      }
      see.say(`“${wanted}” is in no token.`);
    },

    key(event) {
      const cursor = see.cursor, tag = event.target.tagName;
      if (event.ctrlKey || event.metaKey || event.altKey || !cursor.told || document.querySelector("dialog[open]")) return;
      if (["INPUT", "SELECT", "TEXTAREA"].includes(tag)) return;
      const isTab = event.target.getAttribute && event.target.getAttribute("role") === "tab";
      const keys = {
        ArrowLeft: () => cursor.set({ position: cursor.position - 1 }), ArrowRight: () => cursor.set({ position: cursor.position + 1 }),
        Home: () => cursor.set({ position: cursor.first }), End: () => cursor.set({ position: cursor.last }),
        "[": () => cursor.set({ layer: cursor.layer - 1 }), "]": () => cursor.set({ layer: cursor.layer + 1 }),
        ",": () => cursor.set({ head: cursor.head - 1 }), ".": () => cursor.set({ head: cursor.head + 1 }),
        n: () => cursor.set({ sequence: (cursor.sequence + 1) % cursor.told.sequences.length }),
        "+": () => cursor.set({ rate: Math.min(12, cursor.rate * 1.5) }), "-": () => cursor.set({ rate: Math.max(0.25, cursor.rate / 1.5) }),
        "/": () => { document.getElementById("jump").focus(); document.getElementById("jump").select(); }, "?": () => document.getElementById("help").showModal(), t: () => see.theme(),
      };
      if (event.key === " " && !(tag === "BUTTON" && !isTab)) keys[" "] = () => cursor.play();
      if (/^[1-9]$/.test(event.key)) keys[event.key] = () => cursor.set({ view: Number(event.key) - 1 });
      if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
    },

    draw(cursor) {
      const at = (id) => document.getElementById(id), last = Math.max(1, cursor.last);
      at("play").querySelector("path").setAttribute("d", cursor.isPlaying ? "M2 1h4v12H2zM8 1h4v12H8z" : "M3 1v12l10-6z");
      at("play").setAttribute("aria-label", cursor.isPlaying ? "pause" : "play");
      at("play").setAttribute("aria-pressed", String(cursor.isPlaying));
      see.fill(at("where"), cursor.step >= 0 ? `step ${cursor.step + 1} of ${cursor.last - cursor.first + 1}` : "in the prompt", ` · position ${cursor.position} · `, see.token(cursor.text(cursor.position), cursor.id(cursor.position)));
      this.choose(at("sequence"), cursor.told.sequences.length, cursor.sequence, at("sequence-label"));
      const shape = cursor.shape;
      this.choose(at("layer"), shape ? shape.layers : 0, cursor.layer, at("layer-label"));
      this.choose(at("head"), shape ? shape.heads : 0, cursor.head, at("head-label"));
      scrub().setAttribute("aria-valuenow", cursor.position);
      scrub().setAttribute("aria-valuemax", cursor.last);
      scrub().setAttribute("aria-valuetext", `position ${cursor.position}, ${see.plainToken(cursor.text(cursor.position), cursor.id(cursor.position))}`);
      const { context, width } = see.canvas(scrub().querySelector("canvas"), 34), ink = see.ink(), step = width / (last + 1);
      for (const source of cursor.sources) {
        const from = source.first * step, to = Math.min(source.end, last + 1) * step;
        if (to <= from) continue;
        context.fillStyle = see.pattern(context, source.kind);
        context.fillRect(from, 12, to - from - 1, 11);
      }
      context.fillStyle = ink.soft;
      if (step > 4) for (let p = 0; p <= last; p++) context.fillRect(p * step, 25, 0.6, p % 10 ? 3 : 7);
      context.fillStyle = ink.brass;
      const x = (cursor.position + 0.5) * step;
      context.beginPath(); context.moveTo(x - 6, 0); context.lineTo(x + 6, 0); context.lineTo(x, 10); context.fill();
      context.fillRect(x - 0.8, 8, 1.6, 24);
    },

    choose(select, count, value, label) {
      label.hidden = count < 2;
      if (select.options.length !== count) see.fill(select, Array.from({ length: count }, (_, i) => h("option", { value: i }, String(i))));
      select.value = String(value);
    },
  };
})();
