// Trials with a slider per clip, 0 to 100.

import { make, word } from "./dom.js";
import { Player } from "./sound.js";

/** A trial of several versions beside a reference. changed: called when a clip was heard or a slider moved. */
export class Sliders {
  constructor(trial, changed) {
    this.clips = trial.clips;
    this.values = {};
    const heard = () => {
      // Not the whole field: its players stay on.
      for (const { input } of this.sliders) input.disabled = !this.allHeard();
      changed();
    };
    const reference = new Player(trial.reference, word("reference"), heard);
    const versions = trial.clips.map((clip, at) => new Player(clip, word("version", { number: at + 1 }), heard));
    this.players = [reference, ...versions];
    this.sliders = trial.clips.map((clip, at) => this.slider(clip, versions[at], changed));
    const marks = [1, 2, 3, 4, 5].map((number) => make("span", { text: word(`sliders_${number}`) }));
    const field = make(
      "fieldset",
      { class: "sliders" },
      make("legend", { text: word("question_sliders") }),
      make("div", { class: "row marks", "aria-hidden": "true" }, make("span"), make("div", {}, ...marks), make("span")),
      ...this.sliders.map(({ row }) => row),
    );
    this.node = [make("div", { class: "players" }, reference.node), field];
    this.keys = word("keys_sliders");
  }

  slider(clip, player, changed) {
    const number = make("output", { text: "–" });
    const input = make("input", { type: "range", min: "0", max: "100", step: "1", value: "50", class: "unset", disabled: true, "aria-label": player.label });
    const set = () => {
      this.values[clip] = Number(input.value);
      number.textContent = input.value;
      input.classList.remove("unset");
      input.setAttribute("aria-valuetext", `${input.value}, ${word(`sliders_${Math.min(5, Math.floor(input.value / 20) + 1)}`)}`);
      changed();
    };
    input.addEventListener("input", set);
    // A click on the middle is a rating of 50.
    input.addEventListener("change", set);
    input.addEventListener("pointerup", () => input.disabled || set());
    return { input, row: make("div", { class: "row" }, player.node, input, number) };
  }

  allHeard() {
    return this.players.every((player) => player.plays > 0);
  }

  complete() {
    return this.clips.every((clip) => clip in this.values);
  }

  digit(number) {
    const player = this.players[number];
    if (!player) return;
    player.start();
    this.sliders[number - 1].input.focus();
  }

  scores() {
    return this.values;
  }
}
