// The list at the left: pages of fifty segments, of which only what is in sight is in the document.

import { byId, make, post } from "./server.js";

const HEIGHT = 50;

export class List {
  constructor(opened, failed) {
    this.opened = opened; // (row) when another segment is opened
    this.failed = failed;
    this.box = byId("list");
    this.inside = byId("rows");
    this.rows = [];
    this.here = -1;
    this.more = false;
    this.asked = {};
    this.box.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(this.box);
    this.inside.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.open(Number(row.dataset.at));
    });
  }

  // Shows what matches. A newer question stops an older one.
  async show(asked) {
    this.loading?.abort();
    const own = (this.loading = new AbortController());
    const found = await post("api/page", { ...asked, offset: 0 }, own.signal);
    if (own.signal.aborted) return;
    this.asked = asked;
    this.rows = found.rows;
    this.more = found.more;
    this.here = -1;
    this.box.scrollTop = 0;
    this.draw();
    if (this.rows.length) this.open(0, false);
    else this.opened(null, false);
  }

  async load() {
    if (!this.more || this.waiting) return this.waiting;
    const asked = this.asked;
    this.waiting = post("api/page", { ...asked, offset: this.rows.length }).then(
      (found) => {
        if (asked !== this.asked) return;
        this.rows.push(...found.rows);
        this.more = found.more;
      },
      (error) => this.failed(error),
    );
    await this.waiting;
    this.waiting = null;
    this.draw();
  }

  async open(at, byHand = true) {
    if (at >= this.rows.length) await this.load();
    if (at < 0 || at >= this.rows.length) return false;
    this.here = at;
    const top = at * HEIGHT;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    if (top + HEIGHT > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + HEIGHT - this.box.clientHeight;
    this.draw();
    this.opened(this.rows[at], byHand);
    return true;
  }

  move(by) {
    return this.open(this.here + by);
  }

  next(by = 1) {
    return this.rows[this.here + by];
  }

  changed(segment, values) {
    for (const row of this.rows) if (row.segment_id === segment) Object.assign(row, values);
    this.draw();
  }

  draw() {
    const first = Math.max(Math.floor(this.box.scrollTop / HEIGHT) - 4, 0);
    const last = Math.min(Math.ceil((this.box.scrollTop + this.box.clientHeight) / HEIGHT) + 4, this.rows.length);
    this.inside.style.height = `${this.rows.length * HEIGHT}px`;
    this.inside.replaceChildren(...this.rows.slice(first, last).map((row, at) => this.line(row, first + at)));
    if (!this.rows.length) this.inside.append(make("div", "empty", "No segment matches."));
    if (this.more && last > this.rows.length - 30) this.load();
  }

  line(row, at) {
    const line = make("div", at === this.here ? "row here" : "row");
    line.style.top = `${at * HEIGHT}px`;
    line.dataset.at = at;
    line.setAttribute("role", "option");
    line.setAttribute("aria-selected", at === this.here);
    const text = make("div", row.text ? "say" : "say none", row.text || (row.has_audio ? "no text" : "no audio"));
    text.dir = "auto";
    const sub = make("div", "sub", make("i", `dot ${row.kept ? "kept" : "rejected"}`));
    sub.append(make("span", "", seconds(row.duration_s)), make("span", "", row.language ?? ""));
    if (row.mine) sub.append(make("span", `pill ${row.mine}`, row.mine));
    if (!row.kept) sub.append(make("span", "why", (row.reasons ?? []).join(", ").replaceAll("_", " ")));
    if ("sorted_by" in row) sub.append(make("span", "sorted", brief(row.sorted_by)));
    line.append(text, sub);
    return line;
  }
}

export const seconds = (value) => (value == null ? "" : `${value.toFixed(value < 100 ? 1 : 0)} s`);

export function brief(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") return Number.isInteger(value) ? value.toLocaleString("en") : Number(value.toPrecision(4)).toString();
  if (Array.isArray(value)) return value.join(", ") || "–";
  return String(value);
}
