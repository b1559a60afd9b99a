// The clip of a voice: recorded, chosen or dropped; checked here, decoded for good on the server.
import { say } from "./strings.js";

const SHORTEST_S = 3;
const LONGEST_S = 30;
const find = (id) => document.getElementById(id);

export class Clip {
  // onChange(): after the clip became another one.
  constructor(onChange) {
    this.blob = null;
    this.onChange = onChange;
    find("record").onclick = () => (this.recorder ? this.recorder.stop() : this.#record());
    find("file").onchange = ({ target }) => target.files[0] && this.take(target.files[0]);
    const place = find("panel-clone");
    place.ondragover = (event) => {
      event.preventDefault();
      find("drop").classList.add("over");
    };
    place.ondragleave = () => find("drop").classList.remove("over");
    place.ondrop = (event) => {
      event.preventDefault();
      find("drop").classList.remove("over");
      if (event.dataTransfer.files[0]) this.take(event.dataTransfer.files[0]);
    };
  }

  // Use these bytes as the clip.
  async take(blob) {
    this.blob = blob;
    const audio = find("clip");
    URL.revokeObjectURL(audio.src);
    audio.src = URL.createObjectURL(blob);
    audio.hidden = false;
    find("warning").textContent = await judge(blob);
    this.onChange();
  }

  // The clip as a data: URL with an audio type.
  dataUrl() {
    return new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(`data:audio/x-clip;base64,${reader.result.slice(reader.result.indexOf(",") + 1)}`);
      reader.onerror = () => reject(reader.error);
      reader.readAsDataURL(this.blob);
    });
  }

  showButton() {
    find("record").textContent = say(this.recorder ? "stopRecording" : this.blob ? "retake" : "record");
  }

  async #record() {
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false } });
    } catch (error) {
      find("warning").textContent = say("noMicrophone", { reason: error.message });
      return;
    }
    const parts = [];
    this.recorder = new MediaRecorder(stream);
    const started = performance.now();
    const meter = showLevel(stream, () => {
      const seconds = (performance.now() - started) / 1000;
      find("recorded").textContent = say("seconds", { n: seconds.toFixed(1) });
      if (seconds >= LONGEST_S && this.recorder?.state === "recording") this.recorder.stop();
    });
    this.recorder.ondataavailable = ({ data }) => parts.push(data);
    this.recorder.onstop = () => {
      const kind = this.recorder.mimeType;
      this.recorder = null;
      meter.stop();
      for (const track of stream.getTracks()) track.stop();
      this.take(new Blob(parts, { type: kind })).finally(() => this.showButton());
    };
    this.recorder.start();
    find("warning").textContent = "";
    this.showButton();
  }
}

// Show the microphone's level until stop() is called; onTick() is called with every frame.
function showLevel(stream, onTick) {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  context.createMediaStreamSource(stream).connect(analyser);
  const wave = new Float32Array(analyser.fftSize);
  const meter = find("level");
  meter.hidden = false;
  let frame = 0;
  const tick = () => {
    analyser.getFloatTimeDomainData(wave);
    meter.value = wave.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    onTick();
    frame = requestAnimationFrame(tick);
  };
  tick();
  return {
    stop() {
      cancelAnimationFrame(frame);
      meter.hidden = true;
      find("recorded").textContent = "";
      context.close();
    },
  };
}

// What is wrong with a clip, "" if nothing is.
async function judge(blob) {
  const context = new OfflineAudioContext(1, 1, 16000);
  let audio;
  try {
    audio = await context.decodeAudioData(await blob.arrayBuffer());
  } catch {
    return say("unreadable");
  }
  const wave = audio.getChannelData(0);
  let sum = 0;
  let clipped = 0;
  for (const value of wave) {
    sum += value * value;
    clipped += Math.abs(value) > 0.99;
  }
  const found = [];
  if (audio.duration < SHORTEST_S) found.push(say("tooShort"));
  if (Math.sqrt(sum / wave.length) < 0.01) found.push(say("tooQuiet"));
  if (clipped > wave.length / 1000) found.push(say("clipped"));
  return found.join(" ");
}
