// Trials with one choice per question: points, comparison, preference, and the checks.

import { make, test, word } from "./dom.js";
import { Player } from "./sound.js";

const POINTS = [1, 2, 3, 4, 5];

/** Questions of a layout: name of the score, its heading, and (score, label) per choice. */
function questions(trial) {
  const labels = (name, scores) => scores.map((score, at) => [score, word(`${name}_${at + 1}`)]);
  if (trial.layout === "rate")
    return test.scales.map((scale) => [scale, word(`question_${scale}`), labels(scale, POINTS)]);
  if (trial.layout === "compare")
    return [["comparison", word("question_compare"), labels("compare", [-3, -2, -1, 0, 1, 2, 3])]];
  if (trial.layout === "prefer") {
    const question = word(trial.reference ? "question_closer" : "question_prefer");
    return [["preference", question, labels("prefer", [-1, 0, 1])]];
  }
  if (trial.layout === "beeps")
    return [["beeps", word("question_beeps"), POINTS.map((count) => [count, String(count)])]];
  return [["quietest", word("question_tones"), labels("tones", [1, 2, 3])]];
}

function clipLabels(trial) {
  return trial.clips.length === 2 ? ["A", "B"] : [word("clip")];
}

class Question {
  constructor(name, question, choices, look, changed) {
    this.name = name;
    this.value = null;
    this.inputs = choices.map(([score], at) =>
      make("input", { type: "radio", name, value: String(score), id: `${name}-${at}`, on: { change: () => this.set(score, changed) } }),
    );
    const rows = choices.map(([, label], at) =>
      make("label", { for: `${name}-${at}` }, this.inputs[at], make("kbd", { text: String(at + 1) }), make("span", { text: label })),
    );
    const list = make("div", { class: `choices ${look}` }, ...rows);
    this.node = make("fieldset", { disabled: true }, make("legend", { text: question }), list);
  }

  set(score, changed) {
    this.value = score;
    changed(this);
  }

  pick(digit) {
    const input = this.inputs[digit - 1];
    if (!input || this.node.disabled) return;
    input.focus();
    input.click();
  }
}

/** A trial of this file. changed: called when a clip was heard or a choice made. */
export class Choices {
  constructor(trial, changed) {
    this.clips = trial.clips;
    const heard = () => {
      for (const question of this.questions) question.node.disabled = !this.allHeard();
      changed();
    };
    this.players = [];
    if (trial.reference) this.players.push(new Player(trial.reference, word("reference"), heard));
    clipLabels(trial).forEach((label, at) => this.players.push(new Player(trial.clips[at], label, heard)));
    const asked = questions(trial);
    // Numbers are their own keys; several questions stand side by side with their points, so that they fit a screen.
    const look = trial.layout === "beeps" ? "numbers" : asked.length > 1 ? "columns" : "";
    this.questions = asked.map((one) => new Question(...one, look, (question) => this.chosen(question, changed)));
    this.turn(this.questions[0]);
    this.node = [
      make("div", { class: "players" }, ...this.players.map((player) => player.node)),
      ...this.questions.map((question) => question.node),
    ];
    this.keys = word("keys");
  }

  chosen(question, changed) {
    // Digits answer the next question; after the last one they change it.
    this.turn(this.questions.find((one) => one.value === null) ?? question);
    changed();
  }

  turn(question) {
    this.open = question;
    for (const one of this.questions) one.node.classList.toggle("open", one === question && this.questions.length > 1);
  }

  allHeard() {
    return this.players.every((player) => player.plays > 0);
  }

  complete() {
    return this.questions.every((question) => question.value !== null);
  }

  digit(number) {
    this.open.pick(number);
  }

  scores() {
    return Object.fromEntries(this.questions.map((question) => [question.name, question.value]));
  }
}
