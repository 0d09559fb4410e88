"use strict";
// documents: where the numbers come from. A page that was written to a file has them inside; a live one asks its server.
// Either way a document has a path, such as row/0/57, and what is not there says why.

see.Missing = class extends Error {};

see.documents = {
  page: { live: false, documents: {}, left_out: "" },
  kept: new Map(),
  most: 600,

  open() {
    const element = document.getElementById("documents");
    this.page = JSON.parse(element.textContent);
  },

  get isLive() { return this.page.live; },

  get(path) {
    const inside = this.page.documents[path];
    if (inside !== undefined) return Promise.resolve(inside);
    if (!this.isLive) return Promise.reject(new see.Missing(this.page.left_out || "This is not in the file."));
    if (!this.kept.has(path)) {
      const asked = see.progress.during(this.ask("GET", path)).catch((error) => { this.kept.delete(path); throw error; });
      this.kept.set(path, asked);
      if (this.kept.size > this.most) this.kept.delete(this.kept.keys().next().value);
    }
    return this.kept.get(path);
  },

  async ask(method, path, body) {
    const request = this.page.request === null || this.page.request === undefined ? see.cursor.request : this.page.request;
    const whole = path === "requests" ? "requests" : "requests/" + encodeURIComponent(request) + "/" + path;
    const headers = { accept: "application/json" };
    if (see.key.value) headers.authorization = "Bearer " + see.key.value;
    if (body) headers["content-type"] = "application/json";
    const answer = await fetch("see/api/" + whole, { method, headers, body: body && JSON.stringify(body), credentials: "omit" });
    const told = await answer.json().catch(() => ({}));
    if (answer.status === 401) see.key.ask();
    if (!answer.ok) throw new see.Missing((told.error && told.error.message) || "The server did not answer (" + answer.status + ").");
    return told;
  },

  forget() { this.kept.clear(); },
};

// The key of a server that asks for one: from the address's fragment, which no server sees, or typed; kept in memory.
see.key = {
  value: "",
  open() {
    const found = /(?:^|&)key=([A-Za-z0-9._~+/=-]+)/.exec(location.hash.slice(1));
    if (found) {
      this.value = found[1];
      history.replaceState(null, "", location.pathname + location.search);
    }
  },
  ask() {
    const dialog = document.getElementById("key");
    if (!dialog.open) dialog.showModal();
  },
};
