"use strict";
// Players: one clip at a time; the waveform shows and sets the position.
let current = null;
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
    audio.play();
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
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
