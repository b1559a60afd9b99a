// Downloads: one JSON per listener, and the same as a table with a row per rating.

import { make } from "./dom.js";

function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = make("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

function fileName(answers, ending) {
  return `answers-${answers.test}-${answers.listener}-${answers.who}.${ending}`;
}

export function downloadJson(answers) {
  download(fileName(answers, "json"), JSON.stringify(answers, null, 1), "application/json");
}

const COLUMNS = ["test", "listener", "who", "trial", "position", "clips", "scale", "score", "plays", "seconds"];

export function table(answers) {
  const rows = [COLUMNS];
  for (const one of answers.answers) {
    const plays = one.clips.map((clip) => one.plays[clip] ?? 0).join(" ");
    for (const [scale, score] of Object.entries(one.scores)) {
      const head = [answers.test, answers.listener, answers.who, one.trial, one.position, one.clips.join(" ")];
      rows.push([...head, scale, score, plays, one.seconds]);
    }
  }
  return rows.map((row) => row.join(",")).join("\r\n") + "\r\n";
}

export function downloadCsv(answers) {
  download(fileName(answers, "csv"), table(answers), "text/csv");
}
