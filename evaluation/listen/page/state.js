// The answers of a listener. They are what is downloaded, and are stored after every answer.

import { test } from "./dom.js";

export const FORMAT = 1;

/** The trials of a listener number; the plans repeat after the last one. */
export function trialsOf(listener) {
  return test.sessions[(listener - 1) % test.sessions.length];
}

function name(listener) {
  return `listen:${test.id}:${listener}`;
}

function random() {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function newAnswers(listener) {
  return {
    format: FORMAT,
    test: test.id,
    kind: test.kind,
    listener,
    who: random(),
    language: test.language,
    started: new Date().toISOString(),
    finished: null,
    order: trialsOf(listener).map((trial) => trial.id),
    answers: [],
  };
}

/** Return whether this is a beginning of a listener's session. */
export function fits(found) {
  if (found === null || typeof found !== "object" || found.test !== test.id || found.format !== FORMAT) return false;
  if (!Number.isInteger(found.listener) || found.listener < 1 || !Array.isArray(found.answers)) return false;
  if (typeof found.who !== "string") return false;
  const trials = trialsOf(found.listener);
  if (found.answers.length > trials.length) return false;
  return found.answers.every((one, at) => one?.trial === trials[at].id && Array.isArray(one.clips) && one.scores && one.plays);
}

/** Return what is stored of a listener, or null. */
export function stored(listener) {
  try {
    const found = JSON.parse(localStorage.getItem(name(listener)));
    return fits(found) ? found : null;
  } catch {
    return null;
  }
}

/** Return the listener number of last time. */
export function lastListener() {
  try {
    return Number(localStorage.getItem(name("last"))) || null;
  } catch {
    return null;
  }
}

/** Store the answers; return false if the browser does not. */
export function store(answers) {
  try {
    localStorage.setItem(name(answers.listener), JSON.stringify(answers));
    localStorage.setItem(name("last"), String(answers.listener));
    return true;
  } catch {
    return false;
  }
}
