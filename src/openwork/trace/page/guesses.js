"use strict";
// Guesses: what was guessed ahead, what of it came true, and what came instead; drawn wherever tokens are.

(() => {
  const { h } = see;
  const own = (cursor) => (cursor.told.guesses || []).filter((each) => each.index === cursor.line.index);
  const plain = (text, id) => (text === null ? `#${id} ` : text.replaceAll("\n", "↵"));

  // The run of guesses that the row at a position was part of: as a guess, or as the row before the first.
  const around = (cursor, position) => own(cursor).findLast((each) => each.first - 1 <= position && position < each.first + (each.accepted || 0));

  const by = (cursor) => (cursor.told.guessed_by === null ? "" : cursor.told.guessed_by === "ngram" ? "what stood before (n-grams)" : "the draft model " + cursor.told.guessed_by);

  const run = (guess) => h("span", { class: "guesses" }, guess.ids.map((id, i) => {
    const isTrue = guess.accepted !== null && i < guess.accepted;
    return h(isTrue ? "span" : "s", { class: isTrue ? "guess true" : "guess", title: `position ${guess.first + i}: ${isTrue ? "guessed, and chosen" : guess.accepted === null ? "guessed; no result was recorded" : i === guess.accepted ? "guessed, and not chosen" : "guessed behind a wrong guess"}` }, isTrue ? h("span", { class: "unseen" }, "right: ") : h("span", { class: "unseen" }, "wrong: "), see.token(guess.texts[i], id));
  }), guess.instead && guess.accepted < guess.ids.length ? [h("span", { class: "note" }, " came: "), h("b", {}, see.token(guess.instead.text, guess.instead.id))] : null);

  see.guesses = {
    around,

    // Below the diagram of a step; null where nothing was guessed.
    plate(cursor) {
      const guess = around(cursor, cursor.position);
      if (!guess) return null;
      return see.plate("Guessed ahead in this step", "", h("p", {}, run(guess)), h("p", { class: "note" }, `By ${by(cursor)}: ${see.count(guess.ids.length, "guess", "guesses")}, `,
        guess.accepted === null ? "and no result was recorded." : `${guess.accepted} right, ${see.count(guess.rows_for_nothing, "row")} computed for nothing. A guess changes no token: only what would have been chosen is kept.`, see.mark("measured", "guesses and choices stand in the recording")));
    },

    // What was guessed in vain just before a position, for the strip of tokens.
    vain(cursor, position) {
      return own(cursor).filter((each) => each.accepted !== null && each.accepted < each.ids.length && each.first + each.accepted === position)
        .map((each) => {
          const gone = each.ids.slice(each.accepted), texts = each.texts.slice(each.accepted);
          return h("s", { class: "vain", title: `engine step ${each.step}: guessed, and not chosen` }, h("span", { class: "unseen" }, "guessed in vain: "), texts.slice(0, 4).map((t, i) => plain(t, gone[i])).join("") + (gone.length > 4 ? `… +${gone.length - 4}` : ""));
        });
    },

    isRight(cursor, position) {
      return own(cursor).some((each) => each.accepted && each.first <= position && position < each.first + each.accepted);
    },

    // All of them, for the strip of tokens; null where nothing was guessed.
    table(cursor) {
      const all = own(cursor), known = all.filter((each) => each.accepted !== null);
      if (!all.length) return null;
      const count = known.reduce((sum, each) => sum + each.ids.length, 0), right = known.reduce((sum, each) => sum + each.accepted, 0);
      return see.plate("What was guessed ahead", `By ${by(cursor)}. Right guesses are tokens that cost no step of their own; behind the first wrong one rows were computed for nothing.`,
        see.facts(["guessed", String(count), "measured"], ["right", h("span", {}, String(right), h("small", {}, ` of ${count}`)), "measured"], ["rows for nothing", String(count - right), "measured"], ["steps with guesses", String(all.length), "measured"]),
        h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "guesses of each step", style: { marginTop: ".8rem", maxHeight: "20rem" } }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { class: "num" }, "step"), h("th", { class: "num" }, "from"), h("th", {}, "guessed"), h("th", { class: "num" }, "right"), h("th", { class: "num" }, "for nothing"))),
          h("tbody", {}, all.slice(0, 300).map((each) => h("tr", {}, h("td", { class: "num" }, String(each.step)), h("td", { class: "num" }, String(each.first)), h("td", {}, run(each)), h("td", { class: "num" }, each.accepted === null ? "—" : String(each.accepted)), h("td", { class: "num" }, each.rows_for_nothing === null ? "—" : String(each.rows_for_nothing))))))),
        all.length > 300 ? h("p", { class: "note" }, `${all.length - 300} later ones are not listed.`) : null);
    },
  };
})();
