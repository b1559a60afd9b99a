// The course of a session: start, volume, trials in order, end. Keys.

import { button, heading, make, say, show, word } from "./dom.js";
import { Choices } from "./layouts.js";
import { endScreen, levelScreen, pauseScreen, startScreen } from "./screens.js";
import { Sliders } from "./sliders.js";
import { silence } from "./sound.js";
import { newAnswers, store, trialsOf } from "./state.js";

let answers = null;
let view = null;
const bar = document.getElementById("bar");
const pause = document.getElementById("pause");

function begin(listener, found) {
  answers = found ?? newAnswers(listener);
  if (!store(answers)) say(word("storage_off"));
  if (answers.answers.length) proceed();
  else view = levelScreen(proceed);
}

/** Show the first trial without an answer. */
function proceed() {
  silence();
  const trials = trialsOf(answers.listener);
  const at = answers.answers.length;
  bar.hidden = false;
  const progress = document.getElementById("progress");
  progress.max = trials.length;
  progress.value = at;
  const position = word("position", { position: Math.min(at + 1, trials.length), total: trials.length });
  document.getElementById("count").textContent = position;
  progress.setAttribute("aria-label", position);
  pause.hidden = at >= trials.length;
  if (at < trials.length) showTrial(trials[at], at, position);
  else finish();
}

function finish() {
  answers.finished ??= new Date().toISOString();
  store(answers);
  view = endScreen(answers);
}

function showTrial(trial, at, position) {
  const clock = new Clock();
  const go = button(word("next"), () => next(), { class: "main", id: "next", disabled: true });
  const hint = make("p", { class: "hint", id: "hint", text: word("listen_first") });
  const changed = () => {
    const heard = layout.allHeard();
    hint.textContent = heard ? layout.keys : word("listen_first");
    hint.classList.toggle("keys", heard);
    go.disabled = !(heard && layout.complete());
  };
  const layout = new (trial.layout === "sliders" ? Sliders : Choices)(trial, changed);
  const next = () => {
    if (go.disabled) return;
    const plays = Object.fromEntries(layout.players.map((player) => [player.clip, player.plays]));
    const scores = layout.scores();
    answers.answers.push({ trial: trial.id, position: at + 1, clips: trial.clips, scores, plays, seconds: clock.seconds() });
    const kept = store(answers);
    say(word(kept ? "saved" : "storage_off"), !kept);
    proceed();
  };
  show(
    heading(position, { class: "unseen" }),
    trial.training ? make("p", { class: "training", text: word("training") }) : null,
    shown("instruction", trial),
    shown("text", trial),
    ...layout.node,
    hint,
    make("p", { class: "actions" }, go),
  );
  view = { players: layout.players, next, digit: (number) => layout.digit(number) };
}

/** What the item says, in its language. */
function shown(name, trial) {
  if (!trial[name]) return null;
  const said = make("blockquote", { text: trial[name], dir: "auto", ...(name === "text" ? { lang: trial.lang } : {}) });
  return make("div", { class: "shown" }, make("b", { text: word(name) }), said);
}

/** Seconds for which the page was visible. */
class Clock {
  constructor() {
    this.sum = 0;
    this.from = document.hidden ? null : performance.now();
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.stop();
      else this.from ??= performance.now();
    });
  }

  stop() {
    if (this.from !== null) this.sum += performance.now() - this.from;
    this.from = null;
  }

  seconds() {
    this.stop();
    return Math.round(this.sum / 10) / 100;
  }
}

function space() {
  const { players } = view;
  const current = players.find((player) => !player.audio.paused);
  (current ?? players.find((player) => !player.plays) ?? players.at(-1))?.toggle();
}

document.addEventListener("keydown", (event) => {
  if (!view || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const pressed = event.target.closest("button, summary, input[type=checkbox], input[type=number], input[type=file]");
  if (event.key === " " && !pressed) {
    event.preventDefault();
    space();
  } else if (event.key === "Enter" && !pressed) {
    event.preventDefault();
    view.next();
  } else if (/^[1-9]$/.test(event.key) && view.digit) {
    event.preventDefault();
    view.digit(Number(event.key));
  }
});

pause.textContent = word("pause");
pause.addEventListener("click", () => {
  silence();
  pause.hidden = true;
  view = pauseScreen(answers, proceed);
});
startScreen(begin);
