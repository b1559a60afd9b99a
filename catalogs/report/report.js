// Thresholds: the page counts a sample of the segments again.
const sample = document.getElementById("sample");
if (sample) {
  const data = JSON.parse(sample.textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  const languages = bytes(data.language_codes);
  const packed = bytes(data.lengths);
  const lengths = new Float64Array(data.rows).map((_, n) => (packed[2 * n] + 256 * packed[2 * n + 1]) / 100);
  const levers = data.levers.map((one) => ({ ...one, codes: bytes(one.codes), now: one.place }));
  const NO_VALUE = 255;
  const fails = (lever, row) => {
    const code = lever.codes[row];
    if (code === NO_VALUE || lever.now < 0) return false;
    return lever.side === "below" ? code <= lever.now : code > lever.now;
  };
  // Seconds that are kept, by language, and seconds that one threshold alone rejects.
  const count = () => {
    const kept = new Float64Array(data.languages.length);
    const alone = new Float64Array(levers.length);
    for (let row = 0; row < data.rows; row++) {
      let only = -1;
      let failed = 0;
      for (let n = 0; n < levers.length && failed < 2; n++) if (fails(levers[n], row)) { failed++; only = n; }
      if (failed === 0) kept[languages[row]] += lengths[row];
      else if (failed === 1) alone[only] += lengths[row];
    }
    return { kept: kept.map((seconds) => seconds * data.weight), alone: alone.map((seconds) => seconds * data.weight) };
  };
  const words = (seconds) => {
    const size = Math.abs(seconds);
    if (size >= 3600) return (seconds / 3600).toLocaleString("en", { maximumFractionDigits: size < 36000 ? 2 : 0 }) + " h";
    if (size >= 60) return (seconds / 60).toFixed(1) + " min";
    return seconds.toFixed(1) + " s";
  };
  const change = (seconds, base) => {
    const sign = seconds >= 0 ? "+" : "\u2212";
    return sign + words(Math.abs(seconds)) + (base ? ` (${sign}${Math.abs(100 * seconds / base).toFixed(1)} %)` : "");
  };
  const first = count();
  const exact = data.languages.reduce((sum, one) => sum + one.kept_s, 0);
  const value = (lever) => (lever.now < 0 ? "null" : String(lever.edges[lever.now]));
  const list = document.getElementById("gain-languages");
  const rows = data.languages.map((one) => {
    const line = list.appendChild(document.createElement("li"));
    line.textContent = one.name + " ";
    return [0, 1].map(() => { line.append(" "); return line.appendChild(document.createElement("span")); });
  });
  const show = () => {
    const then = count();
    let sum = 0;
    data.languages.forEach((one, n) => {
      const gained = then.kept[n] - first.kept[n];
      sum += gained;
      rows[n][0].textContent = words(Math.max(0, one.kept_s + gained));
      rows[n][1].textContent = change(gained, one.kept_s);
      rows[n][1].className = gained > 0 ? "gained" : gained < 0 ? "lost" : "";
    });
    const moved = levers.filter((lever) => lever.now !== lever.place);
    document.getElementById("gain").hidden = moved.length === 0;
    document.getElementById("gain-kept").textContent = words(Math.max(0, exact + sum)) + " kept";
    const text = document.getElementById("gain-change");
    text.textContent = change(sum, exact);
    text.className = sum > 0 ? "gained" : sum < 0 ? "lost" : "";
    const corpus = document.getElementById("top").dataset.corpus;
    document.getElementById("gain-command").textContent =
      `voxmill catalog ${corpus} ` + moved.map((lever) => `--set ${lever.setting}=${value(lever)}`).join(" ");
    levers.forEach((lever, n) => {
      const seconds = then.alone[n];
      document.querySelector(`[data-alone="${n}"]`).textContent =
        lever.now < 0 ? ": off" : seconds > 0 ? `: alone rejects ${words(seconds)}` : "";
      const line = document.querySelector(`div[data-lever="${n}"]`);
      line.classList.toggle("off", lever.now < 0);
      line.classList.toggle("moved", lever.now !== lever.place);
      line.style.left = 1.765 + 96.47 * Math.max(0, lever.now) / (lever.edges.length - 1) + "%";
      line.classList.toggle("right", lever.now > 0.75 * lever.edges.length);
      line.firstElementChild.textContent = lever.now < 0 ? "" : String(+lever.edges[lever.now].toPrecision(6));
    });
  };
  const slider = (n) => document.querySelector(`input[type=range][data-lever="${n}"]`);
  const box = (n) => document.querySelector(`input[type=checkbox][data-lever="${n}"]`);
  levers.forEach((lever, n) => {
    slider(n).addEventListener("input", () => { lever.now = +slider(n).value; box(n).checked = true; show(); });
    box(n).addEventListener("change", () => { lever.now = box(n).checked ? +slider(n).value : -1; show(); });
  });
  document.getElementById("gain-reset").addEventListener("click", () => {
    levers.forEach((lever, n) => {
      lever.now = lever.place;
      slider(n).value = String(Math.max(0, lever.place));
      box(n).checked = lever.place >= 0;
    });
    show();
  });
  document.getElementById("gain-copy").addEventListener("click", async (event) => {
    const command = document.getElementById("gain-command");
    try {
      await navigator.clipboard.writeText(command.textContent);
      event.target.textContent = "Copied";
    } catch {
      // A page from a file may not write to the clipboard in every browser.
      getSelection().selectAllChildren(command);
      event.target.textContent = "Selected";
    }
    setTimeout(() => { event.target.textContent = "Copy"; }, 1500);
  });
  show();
}
