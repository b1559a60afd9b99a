// Plays streamed 16-bit audio and draws its waveform.
export const RATE = 48000;
const BARS_PER_SECOND = 25;

export class Player {
  // onPlayed(samples, gaps): while it plays; onOver(): when the last sample was played.
  constructor(canvas, onPlayed, onOver) {
    this.canvas = canvas;
    this.onPlayed = onPlayed;
    this.onOver = onOver;
    this.bars = [];
    this.parts = [];
    this.samples = 0;
    this.played = 0;
    this.gaps = 0;
    this.rest = new Uint8Array(0);
  }

  async start() {
    this.context = new AudioContext({ sampleRate: RATE });
    await this.context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
    if (this.isStopped) return;
    this.node = new AudioWorkletNode(this.context, "player", { numberOfInputs: 0, outputChannelCount: [1] });
    this.node.port.onmessage = ({ data }) => {
      this.played = data.played;
      this.gaps = data.gaps;
      this.draw();
      this.onPlayed(data.played, data.gaps);
      if (data.isOver) this.onOver();
    };
    this.node.connect(this.context.destination);
    await this.context.resume();
  }

  // Add bytes of 16-bit samples, little-endian; a sample may be divided between two calls.
  push(bytes) {
    const joined = new Uint8Array(this.rest.length + bytes.length);
    joined.set(this.rest);
    joined.set(bytes, this.rest.length);
    const even = joined.length - (joined.length % 2);
    this.rest = joined.slice(even);
    const whole = new Int16Array(joined.slice(0, even).buffer);
    if (!whole.length) return;
    const floats = Float32Array.from(whole, (value) => value / 32768);
    this.parts.push(whole);
    this.#measure(floats);
    this.samples += whole.length;
    this.node?.port.postMessage(floats, [floats.buffer]);
    this.draw();
  }

  end() {
    this.node?.port.postMessage("end");
  }

  stop() {
    this.isStopped = true;
    this.node?.disconnect();
    this.context?.close();
    this.node = null;
  }

  // All samples so far as one Int16Array.
  audio() {
    const all = new Int16Array(this.samples);
    let at = 0;
    for (const part of this.parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  }

  #measure(floats) {
    const size = RATE / BARS_PER_SECOND;
    for (let at = 0; at < floats.length; at += 1) {
      const bar = Math.floor((this.samples + at) / size);
      this.bars[bar] = Math.max(this.bars[bar] ?? 0, Math.abs(floats[at]));
    }
  }

  draw() {
    const { canvas, bars } = this;
    const width = (canvas.width = canvas.clientWidth * devicePixelRatio);
    const height = (canvas.height = canvas.clientHeight * devicePixelRatio);
    const style = getComputedStyle(canvas);
    const pen = canvas.getContext("2d");
    const step = Math.min(4 * devicePixelRatio, width / Math.max(bars.length, 1));
    const now = (this.played / RATE) * BARS_PER_SECOND;
    bars.forEach((level, index) => {
      pen.fillStyle = index < now ? style.color : style.textDecorationColor;
      const tall = Math.max(1, level * height);
      pen.fillRect(index * step, (height - tall) / 2, Math.max(step * 0.7, 0.5), tall);
    });
  }
}

// A WAV file of 16-bit samples. about: what its comment says.
export function wavFile(samples, about) {
  const note = new TextEncoder().encode(`${about}\0`);
  const padded = note.length + (note.length % 2);
  const view = new DataView(new ArrayBuffer(44 + 20 + padded));
  const word = (at, text) => [...text].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
  word(0, "RIFF");
  view.setUint32(4, view.byteLength - 8 + samples.byteLength, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, RATE, true);
  view.setUint32(28, RATE * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  word(36, "LIST");
  view.setUint32(40, 12 + padded, true);
  word(44, "INFOICMT");
  view.setUint32(52, note.length, true);
  new Uint8Array(view.buffer).set(note, 56);
  word(56 + padded, "data");
  view.setUint32(60 + padded, samples.byteLength, true);
  return new Blob([view.buffer, samples], { type: "audio/wav" });
}
