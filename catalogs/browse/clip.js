// Everything about one segment, at the right.

import { brief, seconds } from "./list.js";
import { byId, make } from "./server.js";

const HEAD = new Set(["segment_id", "text", "kept", "reasons", "human", "uncorrected_text", "other_text", "seq", "session_id", "path"]);

export function showStatus(row, mine) {
  const pills = [make("span", `pill ${row.kept ? "keep" : "drop"}`, row.kept ? "kept" : "rejected")];
  for (const reason of row.reasons ?? []) pills.push(make("span", "pill", reason.replaceAll("_", " ")));
  if (row.human && !mine) pills.push(make("span", `pill ${row.human}`, `people: ${row.human}`));
  byId("status").replaceChildren(...pills);
}

export function showFacts(clip) {
  const { scores } = clip;
  const facts = [seconds(scores.duration_s), scores.language, scores.speaker, `text: ${scores.text_source ?? "none"}`];
  byId("facts").textContent = [...facts.filter(Boolean), `${clip.segment_id} · no. ${scores.seq} of ${scores.session_id}`].join(" · ");
}

export function showMine(mine) {
  byId("keep").classList.toggle("on", mine?.verdict === "keep");
  byId("drop").classList.toggle("on", mine?.verdict === "drop");
  byId("fix").classList.toggle("on", mine?.text != null);
  byId("fix-words").classList.toggle("on", mine?.words != null);
  byId("note").classList.toggle("on", Boolean(mine?.note));
}

// Texts with their words to click at; and the other text, with what differs.
export function showText(clip) {
  const { scores, words } = clip;
  const box = byId("text");
  box.replaceChildren();
  box.dir = "auto";
  const line = make("div");
  const spoken = words.map((word) => word.word.trim()).join("");
  const isSame = spoken && spoken === (scores.text ?? "").replace(/\s+/g, "");
  if (words.length && isSame) {
    const spaces = /\s/.test(scores.text) ? " " : "";
    words.forEach((word, at) => {
      const made = make("span", word.p != null && word.p < 0.5 ? "word unsure" : "word", word.word.trim());
      made.dataset.start = word.start;
      if (word.p != null) made.title = `probability ${word.p.toFixed(2)}`;
      line.append(at ? spaces : "", made);
    });
  } else {
    line.append(scores.text || make("span", "empty", "no text"));
  }
  box.append(line);
  if (scores.uncorrected_text) box.append(compared("before it was corrected", scores.uncorrected_text, scores.text ?? ""));
  if (scores.other_text) {
    const name = scores.text_source === "asr" ? "given with the recording" : "recognized";
    box.append(compared(name, scores.other_text, scores.text ?? ""));
  }
}

function compared(name, before, after) {
  const line = make("div", "other", make("b", "", `${name}: `));
  for (const [kind, words] of differences(before, after)) line.append(kind ? make(kind, "", words) : words, " ");
  return line;
}

// Longest common subsequence of words; texts of one clip are short.
export function differences(before, after) {
  const [a, b] = [before, after].map((text) => text.split(/\s+/).filter(Boolean));
  if (a.length * b.length > 250000) return [["del", before], ["ins", after]];
  const best = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--) best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
  const found = [];
  const add = (kind, word) => (found.at(-1)?.[0] === kind ? (found.at(-1)[1] += ` ${word}`) : found.push([kind, word]));
  for (let i = 0, j = 0; i < a.length || j < b.length; )
    if (i < a.length && j < b.length && a[i] === b[j]) add("", a[i++], j++);
    else if (j >= b.length || (i < a.length && best[i + 1][j] >= best[i][j + 1])) add("del", a[i++]);
    else add("ins", b[j++]);
  return found;
}

export function showMarks(clip) {
  const lines = [];
  if (clip.mine?.note) lines.push(make("div", "", make("b", "", "Your note: "), clip.mine.note));
  for (const mark of clip.others) {
    const said = [mark.verdict, mark.text && `“${mark.text}”`, mark.note].filter(Boolean).join(" · ");
    lines.push(make("div", "dim", make("b", "", `${mark.by}: `), said || "no verdict", ` (${mark.at.slice(0, 16)})`));
  }
  byId("marks").replaceChildren(...lines);
}

// names, units: of columns, by name. Scores that were not measured are left out.
export function showScores(clip, columns) {
  const lines = [];
  for (const { name, words, unit } of columns) {
    const value = clip.scores[name];
    if (HEAD.has(name) || value === null || value === undefined || (Array.isArray(value) && !value.length)) continue;
    lines.push(score(name, brief(value), unit && !/^[\d-]/.test(unit) && !/=/.test(unit) ? unit : "", words));
  }
  for (const [name, value] of Object.entries(clip.extra)) lines.push(score(name, brief(value), "", "Measure of another package"));
  byId("scores").replaceChildren(...lines);
}

function score(name, value, unit, words) {
  const line = make("div", "score", make("span", "name", name), make("span", "value", value), unit ? make("span", "unit", unit) : "");
  line.title = words;
  return line;
}

export function showContext(clip, context) {
  byId("neighbors").replaceChildren(...context.neighbors.map((one) => near(one, `${one.seq}`, one.segment_id === clip.segment_id)));
  byId("references").replaceChildren(...context.references.map((one, at) => near(one, `${at + 1} · cos ${one.cosine.toFixed(2)}`)));
  if (!context.references.length) byId("references").append(make("div", "empty", "No clip of this voice can serve as its reference."));
  byId("descriptions").replaceChildren(...context.descriptions.map((said) => description(said, context.checks)));
  if (!context.descriptions.length) byId("descriptions").append(make("div", "empty", "Nobody has described this clip yet: voxmill describe"));
}

export function clearContext() {
  for (const id of ["neighbors", "references", "descriptions"]) byId(id).replaceChildren();
}

function near(row, number, isHere = false) {
  const line = make("div", isHere ? "near here" : "near");
  line.dataset.segment = row.segment_id;
  const go = make("button", "go", row.has_audio ? "▶" : "–");
  go.disabled = !row.has_audio;
  go.title = "Play it; a click on its text opens it";
  const text = make("span", "say", row.text || "no text");
  text.dir = "auto";
  line.append(go, make("span", "n", number), make("i", `dot ${row.kept ? "kept" : "rejected"}`), text, make("span", "n", seconds(row.duration_s)));
  return line;
}

function description(said, checks) {
  const box = make("div", "card said");
  const verdict = said.verdict ? make("span", `pill ${said.verdict === "dropped" ? "drop" : "keep"}`, said.verdict) : null;
  box.append(make("div", "top", make("b", "", said.annotator), make("span", "dim", said.model ?? ""), verdict));
  if (said.status !== "ok") box.append(make("p", "dim", said.status));
  const captions = said.captions?.length
    ? said.captions.map((one) => [`${one.register} ${one.language}`, one.text])
    : ["brief", "style", "full", "persona"].filter((name) => said[name]).map((name) => [name, said[name]]);
  for (const [name, text] of captions) box.append(make("p", "", make("span", "register", name), text));
  const labels = make("div", "labels");
  const own = checks.filter((check) => check.annotator === said.annotator && check.where === "json");
  for (const [name, value] of Object.entries(said.labels)) {
    if (value === null || value === "" || (Array.isArray(value) && !value.length)) continue;
    const check = own.find((one) => one.attribute === name);
    const made = make("span", check?.state ?? "", `${name}: ${brief(value)}`);
    if (check) made.title = `${check.state}: ${check.source ?? ""} found ${check.found ?? "something else"}${check.p == null ? "" : ` (p ${check.p.toFixed(2)})`}`;
    labels.append(made);
  }
  box.append(labels);
  for (const check of checks.filter((one) => one.annotator === said.annotator && one.state === "contradict"))
    box.append(make("p", "dim", `${check.where}: says ${check.attribute} ${check.claimed}, ${check.source ?? "evidence"} found ${check.found ?? "otherwise"} → ${check.action}`));
  return box;
}
