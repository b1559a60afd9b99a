// Players. A clip has no position to seek to: it counts as played when it has been heard from its start to its end.

import { make, say, test, word } from "./dom.js";

const embedded = JSON.parse(document.getElementById("clips").textContent);
const urls = new Map();
const SLACK = 0.05;
let sounding = null;

function url(clip) {
  const source = test.sources[clip];
  if (source.file) return source.file;
  if (!urls.has(clip)) {
    const bytes = Uint8Array.from(atob(embedded[clip]), (letter) => letter.charCodeAt(0));
    urls.set(clip, URL.createObjectURL(new Blob([bytes], { type: source.type })));
  }
  return urls.get(clip);
}

export class Player {
  /** heard: called when the clip has been played to its end. */
  constructor(clip, label, heard) {
    this.clip = clip;
    this.plays = 0;
    this.label = label;
    this.audio = make("audio", { preload: "auto", src: url(clip) });
    this.fill = make("i");
    this.name = make("span", { class: "name", text: label });
    this.button = make(
      "button",
      { type: "button", class: "play", on: { click: () => this.toggle() } },
      make("span", { class: "sign", "aria-hidden": "true" }),
      this.name,
      make("span", { class: "track", "aria-hidden": "true" }, this.fill),
    );
    this.mark();
    this.node = make("div", { class: "player" }, this.button, this.audio);
    this.reached = 0;
    this.audio.addEventListener("timeupdate", () => this.moved());
    this.audio.addEventListener("seeking", () => {
      // Media keys can seek: back is allowed, beyond what was heard is not.
      if (this.audio.currentTime > this.reached + SLACK) this.audio.currentTime = this.reached;
    });
    for (const event of ["play", "pause"]) this.audio.addEventListener(event, () => this.mark());
    this.audio.addEventListener("error", () => say(word("cannot_play")));
    this.audio.addEventListener("ended", () => {
      this.plays += 1;
      this.reached = 0;
      this.fill.style.width = "100%";
      this.mark();
      heard();
    });
  }

  moved() {
    if (!this.audio.paused && !this.audio.seeking) this.reached = Math.max(this.reached, this.audio.currentTime);
    this.fill.style.width = `${(100 * this.audio.currentTime) / (this.audio.duration || 1)}%`;
  }

  mark() {
    const on = !this.audio.paused && !this.audio.ended;
    this.button.classList.toggle("on", on);
    this.button.classList.toggle("heard", this.plays > 0);
    this.button.setAttribute("aria-label", `${word(on ? "stop" : "play")}: ${this.label}`);
  }

  toggle() {
    if (!this.audio.paused) this.audio.pause();
    else this.start();
  }

  start() {
    if (sounding && sounding !== this) sounding.audio.pause();
    sounding = this;
    this.audio.play().catch((error) => {
      if (error.name !== "AbortError") say(word("cannot_play"));
    });
  }
}

/** Stop what sounds. */
export function silence() {
  sounding?.audio.pause();
  sounding = null;
}
