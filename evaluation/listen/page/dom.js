// What the test is, its words, and elements.

export const test = JSON.parse(document.getElementById("data").textContent);

/** A word of the page; {name} is replaced. */
export function word(name, values = {}) {
  return test.words[name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

/** An element. Attributes: `text`, `on` (listeners by event), properties, otherwise attributes. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (name === "on") for (const [event, call] of Object.entries(value)) element.addEventListener(event, call);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function button(text, click, attributes = {}) {
  return make("button", { type: "button", text, on: { click }, ...attributes });
}

/** The heading of a screen. It takes the focus, so that a screen reader starts there and the keys are free. */
export function heading(text, attributes = {}) {
  return make("h1", { text, tabIndex: -1, ...attributes });
}

/** Put a screen on the page. */
export function show(...parts) {
  const screen = document.getElementById("screen");
  screen.replaceChildren(...parts.filter((part) => part !== null));
  window.scrollTo(0, 0);
  screen.querySelector("h1")?.focus({ preventScroll: true });
}

/** Tell a screen reader, and if it is a fault, show it. */
export function say(text, fault = true) {
  const said = document.getElementById("said");
  said.textContent = text;
  said.classList.toggle("fault", fault);
}
