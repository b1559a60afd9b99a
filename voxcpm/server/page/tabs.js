// The kinds of voices as tabs: arrow keys, Home and End move between them.
const NAMES = ["stored", "describe", "clone", "continue"];
const find = (id) => document.getElementById(id);

export class Tabs {
  // onChange(name): after another tab was chosen.
  constructor(onChange) {
    this.onChange = onChange;
    NAMES.forEach((name, index) => {
      const tab = find(`tab-${name}`);
      tab.onclick = () => this.choose(name);
      tab.onkeydown = (event) => {
        const steps = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: NAMES.length - 1 };
        if (!(event.key in steps)) return;
        event.preventDefault();
        const next = NAMES.at(steps[event.key] % NAMES.length);
        this.choose(next);
        find(`tab-${next}`).focus();
      };
    });
  }

  choose(name) {
    this.name = name;
    for (const one of NAMES) {
      find(`tab-${one}`).setAttribute("aria-selected", one === name);
      find(`tab-${one}`).tabIndex = one === name ? 0 : -1;
    }
    const isClip = name === "clone" || name === "continue";
    find("panel-stored").hidden = name !== "stored";
    find("panel-clone").hidden = !isClip;
    find("panel-clone").setAttribute("aria-labelledby", `tab-${name}`);
    find("panel-stored").setAttribute("aria-labelledby", "tab-stored");
    // Speech that continues a clip has its style from there.
    find("panel-describe").hidden = name === "continue";
    find("words-label").hidden = name !== "continue";
    this.onChange(name);
  }
}
