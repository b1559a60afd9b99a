// The page: reads the form, has the text spoken, shows what happens.
import { Speaking, deleteVoice, getKey, listModels, listVoices, saveVoice, setKey } from "./api.js";
import { Clip } from "./clip.js";
import { codeFor } from "./code.js";
import { History } from "./history.js";
import { LANGUAGES, guessLanguage, languageName } from "./languages.js";
import { Player, RATE } from "./player.js";
import { chooseLanguage, say } from "./strings.js";
import { Tabs } from "./tabs.js";

const find = (id) => document.getElementById(id);
const fail = (text) => (find("error").textContent = text);
let language = "en";
let speaking = null;
let player = null;
let units = [];
let stored = [];

const clip = new Clip(showCode);
const tabs = new Tabs(showCode);
const history = new History(find("history"), reuse, (blob, text) => {
  tabs.choose("clone");
  find("words").value = text;
  clip.take(blob);
  find("tab-clone").focus();
});

// -- the form ----------------------------------------------------------------------------------------------------------

// The fields of the request, without a clip; throws an Error that says what is missing.
function settings() {
  const tab = tabs.name;
  const config = { quality: find("quality").value, cfg_value: Number(find("cfg").value), seed: Number(find("seed").value) };
  if (find("normalize").checked) config.normalize = true;
  if (tab === "stored" && find("voice").value) config.voice = find("voice").value;
  const description = find("description").value.trim();
  if (tab !== "continue" && description) config.instructions = description;
  if (tab === "continue" && find("words").value.trim()) config.ref_text = find("words").value.trim();
  return config;
}

function checkClip() {
  if (tabs.name !== "clone" && tabs.name !== "continue") return;
  if (!clip.blob) throw new Error(say("clipMissing"));
  if (tabs.name === "continue" && !find("words").value.trim()) throw new Error(say("wordsMissing"));
  if (!find("consent").checked) throw new Error(say("consentMissing"));
}

async function fullSettings() {
  checkClip();
  const config = { ...settings(), response_format: "pcm", sample_rate: RATE, stream_audio: true, split_granularity: "none", carry: true };
  if (tabs.name === "clone" || tabs.name === "continue") config.ref_audio = await clip.dataUrl();
  return config;
}

function showCode() {
  const config = settings();
  if ((tabs.name === "clone" || tabs.name === "continue") && clip.blob) config.ref_audio = "data:";
  const { curl, python } = codeFor(config, find("text").value.trim() || say("textHint"), Boolean(getKey()));
  find("curl").textContent = curl;
  find("python").textContent = python;
  find("voice-delete").hidden = !stored.some((voice) => voice.name === find("voice").value && voice.created_at);
}

function showText() {
  const text = find("text").value;
  find("count").textContent = say("characters", { n: [...text].length });
  const code = guessLanguage(text);
  find("language").textContent = code ? say("looksLike", { language: languageName(code, language) }) : "";
}

function anotherSeed() {
  find("seed").value = crypto.getRandomValues(new Uint32Array(1))[0] % 2 ** 31;
}

function reuse({ text, config, seed }) {
  find("text").value = text;
  find("quality").value = config.quality;
  find("cfg").value = config.cfg_value;
  find("cfg-shown").textContent = config.cfg_value.toFixed(1);
  find("seed").value = seed;
  find("description").value = config.instructions ?? "";
  find("normalize").checked = Boolean(config.normalize);
  tabs.choose(config.voice ? "stored" : "describe");
  find("voice").value = config.voice ?? "";
  showText();
  showCode();
  find("text").focus();
}

// -- speech ------------------------------------------------------------------------------------------------------------

async function speak() {
  const text = find("text").value.trim();
  fail("");
  if (!text) return fail(say("textMissing"));
  stop();
  const mine = (player = new Player(find("wave"), (played) => player === mine && showPlayed(played), finish));
  units = [];
  find("pieces").replaceChildren();
  find("stop").disabled = false;
  find("status").textContent = say("waiting");
  find("progress").hidden = false;
  find("progress").value = 0;
  let config;
  try {
    [config] = await Promise.all([fullSettings(), mine.start()]);
  } catch (error) {
    if (player === mine) finish();
    return fail(error.message);
  }
  if (player !== mine) return;
  const asked = performance.now();
  let first = null;
  speaking = new Speaking(config, text, {
    unit: (message) => addUnit(message.sentence_text, message.seed),
    audio: (bytes) => {
      first ??= performance.now() - asked;
      mine.push(bytes);
      find("status").textContent = say("firstAudio", { ms: Math.round(first) });
      showPlayed(mine.played);
    },
    done: () => {
      mine.end();
      const seconds = mine.samples / RATE;
      const rtf = ((performance.now() - asked) / 1000 / seconds).toFixed(2);
      mine.summary = (gaps) => say("done", { s: seconds.toFixed(1), ms: Math.round(first), rtf, gaps: gaps ? say("gaps", { n: gaps }) : "" });
      find("status").textContent = mine.summary(0);
      keep(text, config, mine);
    },
    failed: (entry, message) => {
      fail(message ?? say(entry));
      stop();
    },
  });
}

function addUnit(text, seed) {
  const piece = document.createElement("span");
  piece.className = "waiting";
  piece.textContent = text;
  find("pieces").append(piece, " ");
  units.push({ piece, seed, start: player.samples });
}

// Mark the piece that is being heard.
function showPlayed(played) {
  units.forEach(({ piece, start }, index) => {
    const end = units[index + 1]?.start ?? Infinity;
    piece.className = played < start || (played === 0 && index > 0) ? "waiting" : played < end ? "now" : "";
  });
  const spoken = units.reduce((sum, { piece }) => sum + piece.textContent.length, 0);
  const heard = player?.samples ? played / player.samples : 0;
  find("progress").value = (Math.min(1, spoken / Math.max(1, find("text").value.trim().length)) * heard) || 0;
}

async function keep(text, config, made) {
  const { ref_audio, stream_audio, split_granularity, carry, sample_rate, response_format, ...rest } = config;
  const seed = units[0]?.seed ?? config.seed;
  const about = `AI-generated speech, voxmill, model ${find("model").textContent}, seed ${seed}, ${new Date().toISOString()}`;
  await history.add({ text, config: rest, seed, samples: made.audio(), about });
}

// The last sample was heard.
function finish() {
  find("status").textContent = player?.summary?.(player.gaps) ?? "";
  for (const { piece } of units) piece.className = "";
  find("stop").disabled = true;
  find("progress").hidden = true;
  player?.stop();
  player = null;
  speaking = null;
}

function stop() {
  if (!player && !speaking) return;
  speaking?.cancel();
  finish();
  find("status").textContent = say("stopped");
}

// -- voices and the rest -----------------------------------------------------------------------------------------------

async function showVoices() {
  stored = await listVoices();
  const chosen = find("voice").value;
  const none = new Option(say("noVoice"), "");
  find("voice").replaceChildren(none, ...stored.map(({ name, prompt }) => new Option(prompt ? `${name} – ${prompt}` : name, name)));
  find("voice").value = stored.some(({ name }) => name === chosen) ? chosen : "";
}

async function keepVoice() {
  fail("");
  find("warning").textContent = "";
  try {
    checkClip();
    const name = find("name").value.trim();
    const words = tabs.name === "continue" ? find("words").value.trim() : "";
    const made = await saveVoice({ name, clip: clip.blob, words, consent: say("consentStatement") });
    await showVoices();
    find("voice").value = made.name;
    tabs.choose("stored");
    find("status").textContent = say("voiceSaved", { name: made.name });
  } catch (error) {
    find("warning").textContent = error.message;
  }
}

async function connect() {
  try {
    const [model] = await listModels();
    find("model").textContent = model.id;
    await showVoices();
    fail("");
  } catch (error) {
    fail(error.message);
    if (error.status === 401) askKey();
  }
  showCode();
}

function askKey() {
  find("key-dialog").returnValue = "";
  find("key").value = getKey();
  find("key-dialog").showModal();
}

function show(wanted) {
  language = chooseLanguage(wanted);
  find("interface").value = language;
  find("languages").replaceChildren(...LANGUAGES.map((code) => Object.assign(document.createElement("li"), { textContent: languageName(code, language) })));
  find("examples").replaceChildren(...say("examples").map((text) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: text });
    button.onclick = () => {
      find("description").value = text;
      showCode();
    };
    return button;
  }));
  clip.showButton();
  showText();
  history.show();
}

find("interface").onchange = ({ target }) => {
  show(target.value);
  connect();
};
find("theme").onclick = () => {
  const isDark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = isDark ? "light" : "dark";
  localStorage.setItem("voxmill.theme", document.documentElement.dataset.theme);
};
find("key-open").onclick = askKey;
find("key-dialog").onclose = () => {
  if (find("key-dialog").returnValue !== "save") return;
  setKey(find("key").value.trim());
  connect();
};
find("text").oninput = showText;
find("cfg").oninput = () => (find("cfg-shown").textContent = Number(find("cfg").value).toFixed(1));
find("another").onclick = () => {
  anotherSeed();
  showCode();
};
find("speak").onclick = speak;
find("stop").onclick = stop;
find("save").onclick = keepVoice;
find("voice-delete").onclick = async () => {
  const name = find("voice").value;
  if (!confirm(say("reallyDelete", { name }))) return;
  await deleteVoice(name).then(showVoices).catch((error) => fail(error.message));
  showCode();
};
find("history-clear").onclick = () => history.clear();
document.querySelector("main").addEventListener("change", showCode);
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) speak();
  if (event.key === "Escape" && !find("key-dialog").open) stop();
});

const theme = localStorage.getItem("voxmill.theme");
if (theme) document.documentElement.dataset.theme = theme;
anotherSeed();
tabs.choose("stored");
show();
connect();
