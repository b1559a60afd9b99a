// What was made, kept in this browser's IndexedDB.
import { RATE, wavFile } from "./player.js";
import { say } from "./strings.js";

const MOST = 50;
const STORE = "speech";

function open() {
  return new Promise((resolve, reject) => {
    const asked = indexedDB.open("voxmill", 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore(STORE, { keyPath: "id", autoIncrement: true });
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
}

// Do something with the store; return its result.
async function withStore(mode, act) {
  const database = await open();
  try {
    return await new Promise((resolve, reject) => {
      const work = database.transaction(STORE, mode);
      const asked = act(work.objectStore(STORE));
      work.oncomplete = () => resolve(asked?.result);
      work.onerror = work.onabort = () => reject(work.error);
    });
  } finally {
    database.close();
  }
}

export class History {
  // onReuse(entry): take its settings; onVoice(blob, text): take its audio as a clip.
  constructor(list, onReuse, onVoice) {
    this.list = list;
    this.onReuse = onReuse;
    this.onVoice = onVoice;
  }

  // entry: { text, config, seed, seconds, samples: Int16Array, about }.
  async add(entry) {
    await withStore("readwrite", (store) => store.add({ ...entry, when: Date.now() }));
    const keys = await withStore("readonly", (store) => store.getAllKeys());
    for (const key of keys.slice(0, Math.max(0, keys.length - MOST))) await withStore("readwrite", (store) => store.delete(key));
    await this.show();
  }

  async clear() {
    await withStore("readwrite", (store) => store.clear());
    await this.show();
  }

  async show() {
    const entries = await withStore("readonly", (store) => store.getAll());
    for (const audio of this.list.querySelectorAll("audio")) URL.revokeObjectURL(audio.src);
    this.list.replaceChildren(...entries.reverse().map((entry) => this.#row(entry)));
    if (!entries.length) this.list.textContent = say("emptyHistory");
    document.getElementById("history-clear").hidden = !entries.length;
  }

  #row(entry) {
    const row = document.createElement("li");
    const words = document.createElement("p");
    const short = entry.text.length > 200 ? `${entry.text.slice(0, 200)} …` : entry.text;
    words.textContent = `${short} (${say("seconds", { n: (entry.samples.length / RATE).toFixed(1) })}, ${say("seed")} ${entry.seed})`;
    const blob = wavFile(entry.samples, entry.about);
    const audio = document.createElement("audio");
    audio.controls = true;
    audio.preload = "none";
    audio.src = URL.createObjectURL(blob);
    const link = document.createElement("a");
    link.href = audio.src;
    link.download = `speech-${entry.id}.wav`;
    link.textContent = say("download");
    const actions = [
      ["useAsVoice", () => this.onVoice(blob, entry.text)],
      ["reuse", () => this.onReuse(entry)],
      ["remove", async () => {
        await withStore("readwrite", (store) => store.delete(entry.id));
        await this.show();
      }],
    ].map(([text, act]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = say(text);
      button.onclick = act;
      return button;
    });
    const line = document.createElement("div");
    line.className = "row";
    line.append(audio, link, ...actions);
    row.append(words, line);
    return row;
  }
}
