// Screens that ask nothing: start, volume, break, end.

import { button, heading, make, say, show, test, word } from "./dom.js";
import { downloadCsv, downloadJson } from "./export.js";
import { Player } from "./sound.js";
import { fits, lastListener, stored, trialsOf } from "./state.js";

/** Ask for consent and the listener number. begin(listener, answers or null): called when both are given. */
export function startScreen(begin) {
  const fromAddress = Number(location.hash.slice(1));
  const given = Number.isInteger(fromAddress) && fromAddress > 0 ? fromAddress : lastListener();
  const number = make("input", { type: "number", id: "number", min: "1", step: "1", required: true, inputmode: "numeric", "aria-describedby": "number-help" });
  if (given) number.value = given;
  const agree = make("input", { type: "checkbox", id: "agree" });
  const go = button(word("begin"), () => begin(number.valueAsNumber, found()), { class: "main", id: "begin" });
  const found = () => stored(number.valueAsNumber);
  const update = () => {
    const before = number.validity.valid ? found() : null;
    const position = before && before.answers.length + 1;
    const values = before && { position: Math.min(position, before.order.length), total: before.order.length };
    go.textContent = before && position > 1 ? word("resume", values) : word("begin");
    go.disabled = !(number.validity.valid && agree.checked);
  };
  for (const element of [number, agree]) element.addEventListener("input", update);
  const enter = (event) => event.key === "Enter" && !go.disabled && go.click();
  for (const element of [number, agree]) element.addEventListener("keydown", enter);
  const file = make("input", { type: "file", accept: ".json,application/json", id: "file", on: { change: () => load(file.files[0], begin, agree) } });
  show(
    heading(test.title || word("title")),
    make("p", { text: word(`intro_${test.kind}`) }),
    make("p", { text: word("quiet") }),
    make("h2", { text: word("consent_title") }),
    make("p", { text: test.consent || word("consent") }),
    make("p", { class: "check" }, agree, make("label", { for: "agree", text: word("agree") })),
    make("p", { class: "number" }, make("label", { for: "number", text: word("number") }), number, make("small", { id: "number-help", text: word("number_help") })),
    make("p", { class: "actions" }, go),
    make("details", {}, make("summary", { text: word("load") }), file),
  );
  update();
}

async function load(file, begin, agree) {
  try {
    const found = JSON.parse(await file.text());
    if (!fits(found)) throw new Error("other test");
    agree.checked = true;
    begin(found.listener, { ...found, order: trialsOf(found.listener).map((trial) => trial.id) });
  } catch {
    say(word("bad_file"));
  }
}

/** Let the listener set the volume. */
export function levelScreen(next) {
  const go = button(word("next"), next, { class: "main", id: "next", disabled: true });
  const player = new Player(test.level, word("clip"), () => (go.disabled = false));
  show(heading(word("level_title")), make("p", { text: word("level_text") }), make("div", { class: "players" }, player.node), make("p", { class: "actions" }, go));
  return { players: [player], next: () => go.disabled || next() };
}

export function pauseScreen(answers, next) {
  const go = button(word("go_on"), next, { class: "main", id: "go-on" });
  show(
    heading(word("pause_title")),
    make("p", { text: word("pause_text") }),
    make("p", { class: "actions" }, go, button(word("part"), () => downloadJson(answers), { id: "part" })),
  );
  return { players: [], next };
}

export function endScreen(answers) {
  show(
    heading(word("end_title")),
    make("p", { text: word("end_text") }),
    test.contact ? make("p", { text: word("end_contact", { contact: test.contact }) }) : null,
    make(
      "p",
      { class: "actions" },
      button(word("json"), () => downloadJson(answers), { class: "main", id: "json" }),
      button(word("csv"), () => downloadCsv(answers), { id: "csv" }),
    ),
  );
  return { players: [], next: () => {} };
}
