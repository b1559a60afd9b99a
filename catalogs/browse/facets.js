// The buttons above the list: how much matches, by the values of some columns.

import { byId, make } from "./server.js";

const FACETS = { kept: "kept", human: "people", reason: "reason", language: "language", gender: "gender", emotion: "emotion", text_source: "text", license: "license" };
const NAMES = { kept: { true: "kept", false: "rejected" }, human: { "": "not decided" }, reason: { "": "none" } };

export class Facets {
  constructor(changed) {
    this.changed = changed; // when a value is chosen or left out
    this.values = {};
  }

  get chosen() {
    return Object.fromEntries(Object.entries(this.values).filter(([, values]) => values.length));
  }

  show(counts) {
    const hours = counts.seconds / 3600;
    const length = hours < 10 ? hours.toFixed(2) : Math.round(hours).toLocaleString("en");
    byId("totals").replaceChildren(make("b", "", counts.segments.toLocaleString("en")), ` segments · ${length} h`);
    const opened = document.querySelector(".facet[open]")?.dataset.name;
    const boxes = Object.entries(FACETS).map(([name, title]) => this.box(name, title, counts.facets[name], name === opened));
    byId("facets").replaceChildren(...boxes);
  }

  close() {
    for (const one of document.querySelectorAll(".facet[open]")) one.open = false;
  }

  box(name, title, counts, isOpen) {
    const chosen = this.values[name] ?? [];
    const names = (value) => NAMES[name]?.[value] ?? (value === "" ? "none" : value.replaceAll("_", " "));
    const box = make("details", chosen.length ? "facet on" : "facet");
    box.dataset.name = name;
    box.open = isOpen;
    box.append(make("summary", "", chosen.length ? `${title}: ${chosen.map(names).join(", ")}` : title));
    const values = make("div", "values");
    const missing = chosen.filter((value) => !counts.some(([one]) => one === value)).map((value) => [value, 0]);
    for (const [value, count] of [...counts, ...missing]) {
      const tick = make("input");
      tick.type = "checkbox";
      tick.checked = chosen.includes(value);
      tick.addEventListener("change", () => {
        this.values[name] = tick.checked ? [...chosen, value] : chosen.filter((one) => one !== value);
        this.changed();
      });
      values.append(make("label", "", tick, names(value), make("span", "n", count.toLocaleString("en"))));
    }
    box.append(values);
    box.addEventListener("toggle", () => {
      if (box.open) for (const one of document.querySelectorAll(".facet[open]")) one.open = one === box;
    });
    return box;
  }
}
