"use strict";
// Players: one clip at a time; the waveform shows and sets the position.
let current = null;
const start = (audio) => audio.play().catch((error) => {
  if (error.name !== "AbortError") throw error; // Paused before it began.
});
for (const box of document.querySelectorAll(".player")) {
  const audio = box.querySelector("audio");
  const done = box.querySelector(".done");
  const clock = box.querySelector("time");
  const whole = clock.textContent;
  const wave = box.querySelector(".wave");
  const clip = document.getElementById(done.getAttribute("clip-path").slice(5, -1)).firstElementChild;
  const show = () => {
    const share = audio.duration ? audio.currentTime / audio.duration : 0;
    clip.setAttribute("width", String(160 * share));
    clock.textContent = audio.paused && !share ? whole : audio.currentTime.toFixed(1) + " s";
  };
  const play = () => {
    if (current && current !== audio) current.pause();
    current = audio;
    start(audio);
  };
  box.querySelector("button").addEventListener("click", () => (audio.paused ? play() : audio.pause()));
  wave.addEventListener("click", (event) => {
    const frame = wave.getBoundingClientRect();
    const seek = () => { audio.currentTime = audio.duration * (event.clientX - frame.left) / frame.width; play(); };
    if (audio.readyState > 0) seek();
    else { audio.addEventListener("loadedmetadata", seek, { once: true }); audio.load(); }
  });
  audio.addEventListener("play", () => box.classList.add("playing"));
  audio.addEventListener("pause", () => box.classList.remove("playing"));
  audio.addEventListener("ended", () => { audio.currentTime = 0; show(); });
  audio.addEventListener("timeupdate", show);
}
// Keys: the next and the previous clip, pause.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, button, summary, a")) return;
  const all = [...document.querySelectorAll(".player audio")];
  if (!all.length || !["j", "k", " "].includes(event.key)) return;
  event.preventDefault();
  const at = all.indexOf(current);
  if (event.key === " " && current) {
    if (current.paused) start(current);
    else current.pause();
    return;
  }
  const next = at < 0 ? 0 : Math.min(all.length - 1, Math.max(0, at + (event.key === "k" ? -1 : 1)));
  const box = all[next].closest(".player");
  box.closest(".clip").scrollIntoView({ block: "center" });
  if (all[next].paused) box.querySelector("button").click();
});
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
