// The server's public API.
const KEY = "voxmill.key";
const TEXT_PART = 8000;

export const getKey = () => sessionStorage.getItem(KEY) ?? "";
export const setKey = (key) => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY));

// Ask; return the JSON. Throws an Error with the server's message.
export async function ask(method, path, body) {
  const key = getKey();
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const answer = await fetch(path, { method, body, headers });
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(found.error?.message ?? `status ${answer.status}`), { status: answer.status });
  return found;
}

export const listVoices = async () => (await ask("GET", "v1/audio/voices")).data;
export const listModels = async () => (await ask("GET", "v1/models")).data;
export const deleteVoice = (name) => ask("DELETE", `v1/audio/voices/${encodeURIComponent(name)}`);

// Store a clip as a voice.
export function saveVoice({ name, clip, words, consent }) {
  const form = new FormData();
  form.append("name", name);
  form.append("consent", consent);
  if (words) form.append("ref_text", words);
  form.append("audio_sample", clip, "clip");
  return ask("POST", "v1/audio/voices", form);
}

// A text that is being spoken over a WebSocket. on: { unit(message), audio(bytes), done(), failed(message or null) }.
export class Speaking {
  constructor(config, text, on) {
    const address = new URL("v1/audio/speech/stream", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const key = getKey();
    this.socket = new WebSocket(address, key ? ["realtime", `openai-insecure-api-key.${key}`] : ["realtime"]);
    this.socket.binaryType = "arraybuffer";
    this.on = on;
    this.socket.onopen = () => {
      this.isOpen = true;
      this.#send({ type: "session.config", ...config });
    };
    this.socket.onmessage = ({ data }) => (typeof data === "string" ? this.#take(JSON.parse(data), text) : on.audio(new Uint8Array(data)));
    this.socket.onclose = () => this.#end(() => on.failed(this.isOpen ? "lost" : "refused", null));
  }

  cancel() {
    if (this.socket.readyState === WebSocket.OPEN) this.#send({ type: "input.cancel" });
    this.#end(() => {});
  }

  #send(message) {
    this.socket.send(JSON.stringify(message));
  }

  #take(message, text) {
    if (message.type === "session.configured") {
      for (let at = 0; at < text.length; at += TEXT_PART) this.#send({ type: "input.text", text: text.slice(at, at + TEXT_PART) });
      this.#send({ type: "input.done" });
    } else if (message.type === "audio.start") {
      this.on.unit(message);
    } else if (message.type === "error") {
      this.#end(() => this.on.failed(null, message.message));
    } else if (message.type === "session.done") {
      this.#end(() => this.on.done());
    }
  }

  #end(tell) {
    if (this.isOver) return;
    this.isOver = true;
    this.socket.close();
    tell();
  }
}
