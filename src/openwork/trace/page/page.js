"use strict";
// page: the frame: which request, which view, light or dark; and the beginning of it all.

(() => {
  const { h, cursor } = see;
  const at = (id) => document.getElementById(id);
  const built = [];
  let turn = 0;

  see.tryGet = async (path) => {
    try { return { value: await see.documents.get(path), why: "" }; } catch (error) { return { value: null, why: error.message }; }
  };
  see.quoted = (text, id) => h("span", { class: "token" }, "“", see.token(text, id), "”");
  see.caption = (parts) => see.fill(at("caption"), parts);
  see.say = (words) => { at("said").textContent = words; };
  see.served = (row) => row.served === null || row.served === undefined ? "" : h("span", { class: "tag " + (row.served ? "good" : "") }, row.served ? "as served" : "not as served");

  see.theme = (name) => {
    const root = document.documentElement;
    root.dataset.theme = name || (root.dataset.theme === "dark" ? "light" : "dark");
    at("theme").setAttribute("aria-pressed", String(root.dataset.theme === "dark"));
    if (cursor.told) see.draw();
  };

  see.draw = () => {
    const own = ++turn, view = see.views[cursor.view];
    see.views.forEach((each, i) => {
      const tab = at("tab-" + each.key), isOn = i === cursor.view;
      tab.setAttribute("aria-selected", String(isOn));
      tab.tabIndex = isOn ? 0 : -1;
      at("panel-" + each.key).hidden = !isOn;
    });
    at("title").textContent = view.title;
    document.title = `${view.title} · ${cursor.told.id} · openwork`;
    see.transport.draw(cursor);
    if (!built[cursor.view]) built[cursor.view] = view.build(at("panel-" + view.key));
    const { request, sequence, position, layer, head } = cursor;
    history.replaceState(null, "", "#" + new URLSearchParams({ request, view: view.key, sequence, position, layer, head }));
    see.drawn = Promise.resolve(built[cursor.view].draw(cursor, () => own === turn)).catch((error) => {
      see.say(error.message);
      see.fill(at("panel-" + view.key), see.missing("This view could not be drawn: " + error.message));
      built[cursor.view] = null;
    }).then(() => { if (own === turn) document.documentElement.dataset.drawn = String(own); });
  };

  const about = (told, costs) => {
    const rows = [["request", told.id], ["model", told.model], ["contract", told.contract_id], ["weights, cache", `${told.dtype}, ${told.kv_dtype}`], ["prompt", see.count(told.prompt.ids.length, "token")],
      ["cached", see.count(told.cached, "token")], ["said", told.sequences.map((s) => s.ids.length).join(" + ") + " tokens"], ["took", see.seconds(told.took_s)]];
    see.fill(at("which"), rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value === null ? "—" : value))));
    see.fill(at("notes"), told.missing.map((text) => see.missing(text)));
  };

  const tabs = () => {
    see.fill(at("nav"), see.views.map((view, i) => [i === 6 ? h("hr", { role: "presentation" }) : null, h("button", { type: "button", role: "tab", id: "tab-" + view.key, "aria-controls": "panel-" + view.key, "aria-selected": "false",
      onclick: () => cursor.set({ view: i }) }, h("b", { "aria-hidden": "true" }, String(i + 1)), view.title)]));
    at("nav").addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const view = (cursor.view + step + see.views.length) % see.views.length;
      cursor.set({ view });
      at("tab-" + see.views[view].key).focus();
    });
    at("panels").append(...see.views.map((view) => h("div", { id: "panel-" + view.key, role: "tabpanel", "aria-labelledby": "tab-" + view.key, hidden: true })));
  };

  const show = async (request, place = {}) => {
    see.documents.forget();
    see.window.forget();
    Object.assign(cursor, { request, told: null, isPlaying: false });
    const told = await see.documents.get("request"), costs = await see.tryGet("costs");
    cursor.told = told;
    cursor.shape = costs.value && costs.value.spec;
    cursor.position = told.prompt.ids.length - 1;
    scrubFrom(told);
    about(told, costs.value);
    at("empty").hidden = true;
    const view = see.views.findIndex((each) => each.key === place.view);
    const number = (name, plain) => (place[name] !== undefined && /^\d+$/.test(place[name]) ? Number(place[name]) : plain);
    cursor.set({ view: view >= 0 ? view : cursor.view, sequence: number("sequence", 0), position: number("position", cursor.position), layer: number("layer", cursor.shape ? cursor.shape.layers >> 1 : 0), head: number("head", 0) });
  };
  const scrubFrom = (told) => at("scrub").setAttribute("aria-label", `position, of ${told.prompt.ids.length} given and ${told.sequences[0].ids.length} generated tokens`);

  const list = async (place) => {
    const found = await see.tryGet("requests"), ids = found.value ? found.value.requests.filter((r) => !r.error && r.output_tokens.length) : [];
    const select = at("request");
    select.parentElement.hidden = !see.documents.isLive || see.documents.page.request !== null;
    const left = found.value ? found.value.left_out : 0, { request: fixed, first } = see.documents.page, wanted = fixed || place.request || first || (ids.length ? ids[0].id : null);
    see.fill(select, [ids.map((r) => h("option", { value: r.id }, `${r.id} · ${r.prompt_tokens} + ${r.output_tokens.join(" + ")}`)),
      wanted !== null && !ids.some((r) => r.id === wanted) ? h("option", { value: wanted }, wanted) : null,
      left ? h("option", { disabled: true, value: "" }, `${left.toLocaleString("en")} before these: #request=ID in the address`) : null]);
    select.onchange = () => show(select.value).catch(fail);
    if (wanted === null || !found.value) { see.fill(at("empty"), see.missing(found.why || "Nothing was recorded yet.")); return; }
    select.value = wanted;
    await show(wanted, place);
  };
  const fail = (error) => { at("empty").hidden = false; see.fill(at("empty"), see.missing(error.message)); };

  const open = async () => {
    see.documents.open();
    see.key.open();
    document.body.append(see.patterns());
    const place = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    see.theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    at("theme").addEventListener("click", () => see.theme());
    at("helps").addEventListener("click", () => at("help").showModal());
    for (const button of document.querySelectorAll("dialog .close")) button.addEventListener("click", () => button.closest("dialog").close());
    at("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      see.key.value = at("key-value").value.trim();
      at("key").close();
      see.documents.forget();
      list(place).catch(fail);
    });
    tabs();
    see.transport.open();
    cursor.listeners.push(() => { if (cursor.told) see.draw(); });
    let wide = 0;
    new ResizeObserver(([{ contentRect }]) => { // of its width alone: drawing changes the height
      if (wide !== contentRect.width && cursor.told && wide) see.draw();
      wide = contentRect.width;
    }).observe(at("main"));
    if (see.documents.page.beside || see.documents.page.against) cursor.view = see.views.findIndex((view) => view.key === "diff");
    await list(place);
  };

  open().catch(fail).then(() => { document.documentElement.dataset.ready = "true"; });
})();
