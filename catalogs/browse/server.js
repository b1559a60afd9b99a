// Requests to the server. The token is in a cookie that scripts cannot read.

export class Refusal extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status; // of HTTP; 0 if there was no answer
  }
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { "X-Voxmill": "1", ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("the server does not answer: is voxmill browse still running?");
  }
  if (!answer.ok) throw new Refusal(await answer.text(), answer.status);
  return answer;
}

export const get = async (path) => (await ask(path)).json();

export async function post(path, body, signal) {
  const options = { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, signal };
  return (await ask(path, options)).json();
}

// Encoded twice: an id may hold a slash, or be nothing but dots.
const encoded = (segment) => encodeURIComponent(encodeURIComponent(segment).replaceAll(".", "%2E"));
export const clipPath = (segment, what = "") => `api/clip/${encoded(segment)}${what}`;

export const sound = async (segment) => (await ask(clipPath(segment, "/audio"))).blob();

export async function spectrogram(segment) {
  const answer = await ask(clipPath(segment, "/spectrogram"));
  const levels = new Uint8Array(await answer.arrayBuffer());
  return { levels, columns: Number(answer.headers.get("X-Columns")), topHz: Number(answer.headers.get("X-Top-Hz")) };
}

// Elements: all text goes through textContent, so nothing of a corpus is ever read as HTML.
export const byId = (id) => document.getElementById(id);

export function make(tag, names = "", ...children) {
  const made = document.createElement(tag);
  if (names) made.className = names;
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

let hiding = 0;
export function say(text, isBad = false) {
  const box = byId("message");
  box.textContent = text;
  box.classList.toggle("bad", isBad);
  box.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => (box.hidden = true), isBad ? 6000 : 2500);
}
