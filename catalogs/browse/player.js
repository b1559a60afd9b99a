// Waveform, words in time, spectrogram and sound of one clip; and the sound of neighbors and references.

import { byId, make, say, sound, spectrogram } from "./server.js";
import WaveSurfer from "./wavesurfer.esm.js";

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Player {
  constructor() {
    this.wave = WaveSurfer.create({
      container: byId("wave"), height: 96, barWidth: 2, barGap: 1, barRadius: 2, cursorWidth: 2, normalize: true,
      cspNonce: document.querySelector("meta[name=nonce]").content, ...this.colors(),
    });
    this.other = new Audio();
    this.sounds = new Map();
    this.words = [];
    this.segment = null;
    this.wave.on("play", () => this.stopOther());
    for (const name of ["play", "pause", "finish"]) this.wave.on(name, () => this.button());
    this.wave.on("timeupdate", (time) => this.at(time));
    this.wave.on("error", (error) => error.name !== "AbortError" && say(`the clip cannot be played: ${error.message ?? error}`, true));
    this.other.addEventListener("ended", () => this.stopOther());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.wave.setOptions(this.colors());
      this.drawSpectrogram();
    });
    byId("lanes").addEventListener("click", (event) => event.target.dataset.start && this.from(Number(event.target.dataset.start)));
  }

  colors() {
    return { waveColor: color("--wave"), progressColor: color("--played"), cursorColor: color("--ink") };
  }

  // Fetches the sound of a clip before it is asked for. The last forty stay.
  fetch(segment) {
    if (!this.sounds.has(segment)) {
      const loading = sound(segment).then((blob) => URL.createObjectURL(blob));
      loading.catch(() => this.sounds.delete(segment));
      this.sounds.set(segment, loading);
      if (this.sounds.size > 40) {
        const [oldest, url] = this.sounds.entries().next().value;
        this.sounds.delete(oldest);
        url.then((made) => URL.revokeObjectURL(made), () => {});
      }
    }
    return this.sounds.get(segment);
  }

  async show(clip, starts) {
    this.stopOther();
    this.wave.pause();
    this.segment = clip.segment_id;
    this.duration = clip.scores.duration_s || 1;
    this.levels = null;
    this.setWords(clip.words);
    this.drawSpectrogram();
    byId("play").disabled = !clip.has_audio;
    if (!clip.has_audio) {
      this.wave.empty();
      this.at(0);
      return;
    }
    if (byId("show-spectrogram").checked) this.loadSpectrogram();
    const url = await this.fetch(clip.segment_id);
    if (this.segment !== clip.segment_id) return; // The person went on meanwhile.
    await this.wave.load(url, [clip.peaks], this.duration);
    this.at(0);
    if (starts && this.segment === clip.segment_id) await this.play();
  }

  async play() {
    try {
      await this.wave.play();
    } catch (error) {
      if (error.name === "NotAllowedError") say("the browser plays sound after the first key or click");
    }
  }

  toggle() {
    if (this.wave.isPlaying()) this.wave.pause();
    else if (!this.other.paused) this.stopOther();
    else this.play();
  }

  from(time) {
    this.wave.setTime(time);
    this.play();
  }

  seek(by) {
    this.wave.setTime(Math.min(Math.max(this.wave.getCurrentTime() + by, 0), this.duration));
  }

  async playOther(segment, line) {
    const wasPlaying = line.classList.contains("sounding");
    this.wave.pause();
    this.stopOther();
    if (wasPlaying) return;
    line.classList.add("sounding");
    try {
      this.other.src = await this.fetch(segment);
      await this.other.play();
    } catch (error) {
      if (error.name !== "AbortError") say(error.message, true);
      this.stopOther();
    }
  }

  stopOther() {
    this.other.pause();
    for (const line of document.querySelectorAll(".near.sounding")) line.classList.remove("sounding");
  }

  button() {
    byId("play").firstChild.textContent = this.wave.isPlaying() ? "▮▮ Pause " : "▶ Play ";
  }

  setWords(words) {
    this.words = words;
    byId("lanes").replaceChildren(
      ...words.map((word) => {
        const made = make("span", "", word.word);
        made.style.left = `${(100 * word.start) / this.duration}%`;
        made.style.maxWidth = `${Math.max((200 * (word.end - word.start)) / this.duration, 1)}%`;
        made.dataset.start = word.start;
        made.title = `${word.word} · ${word.start.toFixed(2)}–${word.end.toFixed(2)} s`;
        return made;
      }),
    );
  }

  at(time) {
    byId("time").textContent = `${time.toFixed(1)} / ${this.duration.toFixed(1)} s`;
    const spoken = byId("text").querySelectorAll(".word");
    const lanes = byId("lanes").children;
    this.words.forEach((word, at) => {
      const now = time >= word.start && time < word.end && time > 0;
      lanes[at]?.classList.toggle("now", now);
      spoken[at]?.classList.toggle("now", now);
    });
  }

  async loadSpectrogram() {
    const segment = this.segment;
    try {
      const found = await spectrogram(segment);
      if (segment === this.segment) {
        this.levels = found;
        this.drawSpectrogram();
      }
    } catch (error) {
      say(error.message, true);
    }
  }

  showSpectrogram(shown) {
    byId("spectrogram").hidden = !shown;
    if (shown && this.segment && !this.levels && !byId("play").disabled) this.loadSpectrogram();
  }

  drawSpectrogram() {
    const canvas = byId("spectrogram").firstElementChild;
    const pen = canvas.getContext("2d");
    if (!this.levels) {
      pen.clearRect(0, 0, canvas.width, canvas.height);
      byId("top-hz").textContent = "";
      return;
    }
    const { levels, columns, topHz } = this.levels;
    const rows = levels.length / columns;
    canvas.width = columns;
    canvas.height = rows;
    const picture = pen.createImageData(columns, rows);
    const low = color("--spectrum-0").split(",").map(Number);
    const high = color("--spectrum-1").split(",").map(Number);
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++) {
        const level = (levels[(rows - 1 - row) * columns + column] / 255) ** 1.4;
        const at = 4 * (row * columns + column);
        for (let part = 0; part < 3; part++) picture.data[at + part] = low[part] + level * (high[part] - low[part]);
        picture.data[at + 3] = 255;
      }
    pen.putImageData(picture, 0, 0);
    byId("top-hz").textContent = `${(topHz / 1000).toFixed(topHz % 1000 ? 1 : 0)} kHz, mel scale`;
  }
}
