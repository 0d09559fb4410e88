"use strict";
// cursor: where we are looking: a view, a sequence, a position, a layer and a head. All views share it.
// The row at a position chooses the token after it, so the decoding phase begins at the last token of the prompt.

see.cursor = {
  request: "", view: 0, sequence: 0, position: 0, layer: 0, head: 0,
  isPlaying: false, rate: 1.5, told: null, timer: 0, listeners: [],

  set(changes) {
    Object.assign(this, changes);
    if (this.told) {
      const last = this.last;
      this.sequence = Math.min(Math.max(0, this.sequence), this.told.sequences.length - 1);
      this.position = Math.min(Math.max(0, this.position), last);
      const shape = this.shape;
      if (shape) {
        this.layer = (this.layer + shape.layers) % shape.layers;
        this.head = (this.head + shape.heads) % shape.heads;
      }
    }
    for (const listener of this.listeners) listener(this);
  },

  get line() { return this.told.sequences[this.sequence]; },
  get sources() { return this.told.sources[this.sequence] || []; },
  get promptLength() { return this.told.prompt.ids.length; },
  get first() { return this.promptLength - 1; }, // the row that chose the first token
  get last() { return Math.max(0, this.promptLength + this.line.ids.length - 2); }, // the row that chose the last one
  get step() { return this.position - this.first; }, // which decoding step; below 0 inside the prompt

  id(position) {
    const count = this.promptLength;
    return position < count ? this.told.prompt.ids[position] : this.line.ids[position - count];
  },
  text(position) {
    const count = this.promptLength;
    return position < count ? this.told.prompt.texts[position] : this.line.texts[position - count];
  },
  kind(position) {
    const source = this.sources.find((each) => each.first <= position && position < each.end);
    return source ? source.kind : "chunk";
  },

  // The engine's step that computed the row at a position, and its part in it: the one that chose from it, or else the
  // last one, since what a preemption forgot is computed again.
  engineStep(position) {
    let found = null;
    const place = position - this.first, number = place >= 0 ? this.line.steps[place] : null, run = this.line.runs[place];
    if (number !== null && number !== undefined) {
      const step = this.told.steps.find((each) => each.number === number && each.run === run);
      const work = step && step.works.find((each) => each.index === this.line.index && each.start <= position && position < each.start + each.count);
      if (work) return { step, work: this.whole(step, work) };
    }
    for (const step of this.told.steps) {
      const work = step.works.find((each) => each.index === this.line.index && each.start <= position && position < each.start + each.count)
        || (position < this.promptLength && step.works.find((each) => each.start <= position && position < each.start + each.count));
      if (work) found = { step, work };
    }
    return found && { step: found.step, work: this.whole(found.step, found.work) };
  },

  // A work with its whole block table: each step tells only what is new in it since the one before.
  whole(step, work) {
    let blocks = [];
    for (const each of this.told.steps) {
      const own = each.works.find((other) => other.index === work.index);
      if (own) blocks = blocks.slice(0, own.kept).concat(own.blocks);
      if (each === step) break;
    }
    return { ...work, blocks };
  },

  play(isPlaying = !this.isPlaying) {
    clearTimeout(this.timer);
    if (isPlaying && this.position >= this.last) this.position = this.first;
    this.set({ isPlaying });
    if (isPlaying) this.tick();
  },

  // The next step comes when this one is drawn, so that a slow machine skips nothing.
  tick() {
    this.timer = setTimeout(async () => {
      await see.drawn;
      if (!this.isPlaying) return;
      if (this.position >= this.last) this.play(false);
      else { this.set({ position: this.position + 1 }); this.tick(); }
    }, 1000 / this.rate);
  },
};
