// The page: what is asked for, the keys, and marks.

import * as shown from "./clip.js";
import { Facets } from "./facets.js";
import { brief, List } from "./list.js";
import { Player } from "./player.js";
import { byId, clipPath, get, make, post, Refusal, say } from "./server.js";

const player = new Player();
const list = new List(open, failed);
const clips = new Map(); // by segment: { clip, context }, both promises
const made = []; // marks of this page that can be undone
const facets = new Facets(() => refresh());
let columns = [];
let present = null; // { row, clip, context }
let saving = Promise.resolve();
let waiting = 0; // marks and undos that the server has not acknowledged
const mine = new Map(); // by segment: what this page said last
let editing = null;

function failed(error) {
  if (error.name === "AbortError") return;
  say(error instanceof Refusal ? error.message : `${error.name}: ${error.message}`, true);
}

// --- what is asked for -------------------------------------------------------------------------------------------------

function asked() {
  return {
    search: byId("search").value, where: byId("where").value, facets: facets.chosen, sort: byId("sort").value,
    descending: byId("direction").getAttribute("aria-pressed") === "true",
  };
}

let newest = 0;
async function refresh() {
  const own = ++newest;
  const question = asked();
  byId("where").parentElement.classList.remove("wrong");
  byId("direction").disabled = !question.sort;
  try {
    await list.show(question);
    if (own !== newest) return;
    const counts = await post("api/facets", question);
    if (own === newest) facets.show(counts);
  } catch (error) {
    if (own !== newest || error.name === "AbortError") return;
    byId("where").parentElement.classList.toggle("wrong", Boolean(question.where));
    failed(error);
  }
}

// --- one segment -------------------------------------------------------------------------------------------------------

function fetched(segment) {
  if (!clips.has(segment)) {
    const clip = get(clipPath(segment));
    const context = clip.then(() => get(clipPath(segment, "/context")));
    for (const loading of [clip, context]) loading.catch(() => clips.delete(segment));
    clips.set(segment, { clip, context });
    if (clips.size > 200) clips.delete(clips.keys().next().value);
  }
  return clips.get(segment);
}

async function open(row, byHand) {
  closeEditor();
  byId("clip").style.visibility = row ? "" : "hidden";
  if (!row) {
    present = null;
    player.wave.pause();
    return;
  }
  const own = (present = { row });
  try {
    const { clip: loading, context } = fetched(row.segment_id);
    const clip = await loading;
    if (present !== own) return;
    own.clip = clip;
    own.row = { ...row, kept: clip.scores.kept, reasons: clip.scores.reasons, human: clip.scores.human };
    show();
    player.show(clip, byHand && byId("autoplay").checked).catch(failed);
    shown.clearContext();
    own.context = await context;
    if (present !== own) return;
    shown.showContext(clip, own.context);
    for (const by of [1, 2, -1]) {
      const ahead = list.next(by);
      if (!ahead) continue;
      fetched(ahead.segment_id);
      if (ahead.has_audio) player.fetch(ahead.segment_id).catch(() => {});
    }
  } catch (error) {
    if (present === own) failed(error);
  }
}

function show() {
  const { row, clip } = present;
  shown.showStatus(row, clip.mine);
  shown.showFacts(clip);
  shown.showMine(clip.mine);
  shown.showText(clip);
  shown.showMarks(clip);
  shown.showScores(clip, columns);
}

async function reopen(segment) {
  clips.delete(segment);
  if (present?.row.segment_id !== segment) return;
  const own = present;
  const loading = fetched(segment);
  const clip = await loading.clip;
  if (present !== own || clips.get(segment) !== loading) return; // Somebody asked again meanwhile.
  own.clip = clip;
  own.row = { ...own.row, kept: own.clip.scores.kept, reasons: own.clip.scores.reasons, human: own.clip.scores.human };
  show();
}

// --- marks -------------------------------------------------------------------------------------------------------------

function saves(act) {
  waiting += 1;
  saving = saving.then(act).catch(failed).finally(() => (waiting -= 1));
}

// Marks are sent one after the other, so that their order is that of the keys; a key counts also if its clip is still on the way.
// What the person said before stays in the mark.
function mark(changes, advances = true) {
  const own = present;
  if (!own) return;
  const { segment_id: segment, mine: before } = own.row;
  if (changes.verdict) list.changed(segment, { mine: changes.verdict });
  saves(async () => {
    try {
      const before = mine.get(segment) ?? (await fetched(segment).clip).mine ?? {};
      const said = { verdict: before.verdict ?? null, text: before.text ?? null, words: before.words ?? null, note: before.note ?? null, ...changes };
      const answer = await post(clipPath(segment, "/mark"), said);
      made.push(answer.mark_id);
      mine.set(segment, said);
      byId("made").textContent = answer.made;
      const isKept = said.verdict && { kept: said.verdict === "keep", reasons: said.verdict === "drop" ? ["human"] : [] };
      list.changed(segment, { mine: said.verdict, ...isKept, ...(said.text !== null && { text: said.text }) });
    } catch (error) {
      failed(error);
      list.changed(segment, { mine: before ?? null });
    }
    reopen(segment).catch(failed); // The next mark does not wait for it.
  });
  if (advances && byId("advance").checked) list.move(1);
}

function undo() {
  saves(async () => {
    if (!made.length) return say("nothing to undo on this page");
    let answer;
    try {
      answer = await post("api/undo", { mark_id: made.at(-1) });
    } catch (error) {
      if (error.status === 400) made.pop(); // Another page took it back before.
      throw error;
    }
    made.pop();
    byId("made").textContent = answer.made;
    clips.delete(answer.segment_id);
    mine.delete(answer.segment_id);
    const { scores } = await fetched(answer.segment_id).clip;
    list.changed(answer.segment_id, { mine: answer.verdict, kept: scores.kept, reasons: scores.reasons, text: scores.text });
    const at = list.rows.findIndex((row) => row.segment_id === answer.segment_id);
    if (present?.row.segment_id !== answer.segment_id && at >= 0) await list.open(at, false);
    else await reopen(answer.segment_id);
    say("undone");
  });
}

const EDITORS = {
  text: {
    title: "Text of the clip", hint: "and keeps the clip",
    fill: (clip) => clip.scores.text ?? "",
    read: (typed) => ({ verdict: "keep", text: typed.trim() }),
  },
  words: {
    title: "Words: start, end (seconds), word", hint: "",
    fill: (clip) => clip.words.map((word) => `${word.start.toFixed(2)}\t${word.end.toFixed(2)}\t${word.word.trim()}`).join("\n"),
    read: (typed, clip) => ({ words: typed.split("\n").filter((line) => line.trim()).map((line) => word(line, clip)) }),
  },
  note: { title: "Note", hint: "", fill: (clip) => clip.mine?.note ?? "", read: (typed) => ({ note: typed.trim() || null }) },
};

function word(line, clip) {
  const [, start, end, said] = /^\s*([\d.]+)\s+([\d.]+)\s+(.+?)\s*$/.exec(line) ?? [];
  const times = [Number(start), Number(end)];
  if (!said || !(times[0] >= 0 && times[0] <= times[1] && times[1] <= clip.scores.duration_s + 0.05))
    throw new Refusal(`write a line as “0.52 0.80 word”, within the clip, not “${line.trim()}”`);
  const known = clip.words.find((one) => one.word.trim() === said && Math.abs(one.start - times[0]) < 0.006);
  return { word: said, start: times[0], end: times[1], p: known?.p ?? null };
}

function edit(kind) {
  if (!present?.clip) return;
  editing = kind;
  const { title, hint, fill } = EDITORS[kind];
  byId("editor-title").textContent = title;
  byId("editor-hint").textContent = hint;
  byId("editor").hidden = false;
  const box = byId("edited");
  box.value = fill(present.clip);
  box.classList.toggle("mono", kind === "words");
  box.rows = kind === "words" ? Math.min(Math.max(present.clip.words.length, 4), 14) : 3;
  box.dir = "auto";
  box.focus();
}

function closeEditor() {
  editing = null;
  byId("editor").hidden = true;
}

function save() {
  try {
    const changes = EDITORS[editing].read(byId("edited").value, present.clip);
    const kind = editing;
    closeEditor();
    document.activeElement.blur();
    mark(changes, kind === "text");
  } catch (error) {
    failed(error);
  }
}

// --- keys --------------------------------------------------------------------------------------------------------------

const neighbor = (by) => {
  const lines = [...byId("neighbors").children];
  const line = lines[lines.findIndex((one) => one.classList.contains("here")) + by];
  if (line) player.playOther(line.dataset.segment, line);
};
const reference = (number) => {
  const line = byId("references").children[number - 1];
  if (line?.dataset.segment) player.playOther(line.dataset.segment, line);
};
const flip = (id) => byId(id).click();
const focus = (id) => {
  byId(id).focus();
  byId(id).select?.();
};
const people = async () => {
  const { people: all, pairs } = await get("api/agreement");
  const table = (head, rows) => {
    const made = make("table", "", make("tr", "", ...head.map((one) => make("th", "", one))));
    for (const row of rows) made.append(make("tr", "", ...row.map((value) => make("td", typeof value === "number" ? "num" : "", brief(value)))));
    return made;
  };
  const percent = (value) => (value == null ? "–" : `${Math.round(100 * value)} %`);
  byId("agreement").replaceChildren(
    table(["person", "segments", "keep", "drop", "texts", "last mark (UTC)"], all.map((one) => [one.by, one.segments, one.keep, one.drop, one.texts, one.last.slice(0, 16)])),
    pairs.length
      ? table(["two people", "both decided", "agree", "kappa", "both corrected", "alike"], pairs.map((one) => [`${one.first} · ${one.second}`, one.segments, percent(one.share), one.kappa, one.texts, one.same_text]))
      : make("p", "dim", "No two people have marked the same segment yet."),
  );
  byId("people").showModal();
};

const KEYS = [
  [["j", "n", "ArrowDown"], "next segment", () => list.move(1)],
  [["i", "p", "ArrowUp"], "previous segment", () => list.move(-1)],
  [[" "], "play, pause", () => player.toggle()],
  [["ArrowLeft"], "one second back", () => player.seek(-1)],
  [["ArrowRight"], "one second on", () => player.seek(1)],
  [["r"], "play from the start", () => player.from(0)],
  [["k"], "keep", () => mark({ verdict: "keep" })],
  [["d"], "drop", () => mark({ verdict: "drop" })],
  [["f"], "fix the text, which keeps the clip", () => edit("text")],
  [["w"], "fix the words and their times", () => edit("words")],
  [["m"], "write a note", () => edit("note")],
  [["u"], "undo the last mark of this page", undo],
  [["["], "play the clip before it in the session", () => neighbor(-1)],
  [["]"], "play the clip after it in the session", () => neighbor(1)],
  [["1", "2", "3", "4", "5", "6", "7", "8"], "play a reference", (key) => reference(Number(key))],
  [["a"], "play on next: on, off", () => flip("autoplay")],
  [["e"], "next after a mark: on, off", () => flip("advance")],
  [["s"], "spectrogram: on, off", () => flip("show-spectrogram")],
  [["/"], "search", () => focus("search")],
  [["c"], "SQL condition", () => focus("where")],
  [["o"], "sort", () => focus("sort")],
  [["g"], "people and agreement", () => people().catch(failed)],
  [["?"], "all keys", () => byId("keys").showModal()],
  [["Escape"], "leave a field, a text or this table", () => {}],
];
const SHOWN = { " ": "space", ArrowDown: "↓", ArrowUp: "↑", ArrowLeft: "←", ArrowRight: "→", Escape: "esc" };
const ACTIONS = new Map(KEYS.flatMap(([keys, , act]) => keys.map((key) => [key, act])));

document.addEventListener("keydown", (event) => {
  if (event.target.id === "edited") {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      save();
    } else if (event.key === "Escape") closeEditor();
    return;
  }
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    facets.close();
    document.activeElement.blur();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input:not([type=checkbox]), select, textarea")) {
    if (event.key === "Enter") {
      event.target.blur();
      refresh();
    }
    return;
  }
  if (event.target.matches("summary, .values input") && [" ", "ArrowDown", "ArrowUp"].includes(event.key)) return;
  const act = ACTIONS.get(event.key);
  if (!act) return;
  event.preventDefault();
  if (event.repeat && !event.key.startsWith("Arrow") && !"jnip".includes(event.key)) return; // A held key marks one clip.
  act(event.key);
});

// --- the start ---------------------------------------------------------------------------------------------------------

const later = (act, ms) => {
  let waiting = 0;
  return () => {
    clearTimeout(waiting);
    waiting = setTimeout(act, ms);
  };
};

function connect() {
  // Whoever closes the page while marks are on their way is asked first.
  window.addEventListener("beforeunload", (event) => waiting && event.preventDefault());
  byId("search").addEventListener("input", later(refresh, 200));
  for (const id of ["where", "sort"]) byId(id).addEventListener("change", refresh);
  byId("sort").addEventListener("change", () => byId("sort").blur());
  byId("direction").addEventListener("click", () => {
    const isDown = byId("direction").getAttribute("aria-pressed") !== "true";
    byId("direction").setAttribute("aria-pressed", isDown);
    byId("direction").textContent = isDown ? "↓" : "↑";
    refresh();
  });
  const clicks = {
    play: () => player.toggle(), keep: () => mark({ verdict: "keep" }), drop: () => mark({ verdict: "drop" }), fix: () => edit("text"),
    "fix-words": () => edit("words"), note: () => edit("note"), undo, help: showKeys, agree: () => people().catch(failed),
  };
  for (const [id, act] of Object.entries(clicks)) byId(id).addEventListener("click", () => (byId(id).blur(), act()));
  byId("editor").addEventListener("submit", (event) => event.preventDefault());
  byId("show-spectrogram").addEventListener("change", (event) => player.showSpectrogram(event.target.checked));
  for (const id of ["autoplay", "advance", "show-spectrogram"]) byId(id).addEventListener("change", () => byId(id).blur());
  byId("text").addEventListener("click", (event) => event.target.dataset.start && player.from(Number(event.target.dataset.start)));
  for (const id of ["neighbors", "references"])
    byId(id).addEventListener("click", (event) => {
      const line = event.target.closest(".near");
      if (!line) return;
      if (event.target.closest(".go")) player.playOther(line.dataset.segment, line);
      else visit(line.dataset.segment);
    });
  document.addEventListener("click", (event) => {
    if (!event.target.closest(".facet")) facets.close();
  });
}

// A neighbor or a reference is opened beside the list: the next key returns to it.
function visit(segment) {
  const at = list.rows.findIndex((row) => row.segment_id === segment);
  if (at >= 0) return list.open(at);
  const row = [...present.context.neighbors, ...present.context.references].find((one) => one.segment_id === segment);
  return open(row, true);
}

function showKeys() {
  byId("keys").showModal();
  byId("keys").scrollTop = 0;
}

async function start() {
  history.replaceState(null, "", location.pathname); // The token stays out of the history.
  connect();
  const about = await get("api/start");
  columns = about.columns;
  byId("corpus").textContent = about.corpus;
  document.title = `${about.corpus} · voxmill browse`;
  byId("by").textContent = about.by;
  byId("made").textContent = about.made;
  byId("sort").append(make("option", "", "corpus order"), ...about.sorts.map((name) => make("option", "", name)));
  byId("sort").firstChild.value = "";
  byId("key-table").append(...KEYS.map(([keys, words]) => {
    const names = keys.length > 4 ? [keys[0], keys.at(-1)] : keys;
    const cell = make("td");
    names.forEach((key, at) => cell.append(at ? (keys.length > 4 ? " – " : " ") : "", make("kbd", "", SHOWN[key] ?? key)));
    return make("tr", "", cell, make("td", "", words));
  }));
  await refresh();
}

start().catch(failed);
