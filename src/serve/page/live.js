// Puts the figures of every second into the elements that carry their keys. Nothing else is computed here.
let source;
const mark = document.querySelector("[data-connection]");

const each = (attribute, values, set) => {
  for (const element of document.querySelectorAll(`[data-${attribute}]`)) {
    const value = values[element.dataset[attribute]];
    if (value !== undefined) set(element, value);
  }
};
const put = (element, name, value) => {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
};
const show = (figures) => {
  each("text", figures.text, (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  });
  each("bar", figures.width, (element, width) => put(element, "width", width));
  each("bar", figures.x, (element, x) => put(element, "x", x));
  each("state", figures.state, (element, state) => put(element, "class", `${element.dataset.base} ${state}`));
};
const connected = (is) => {
  mark.textContent = is ? "live" : "not connected";
  mark.className = is ? "connection" : "connection lost";
};

const open = () => {
  source?.close();
  source = new EventSource("/live");
  source.onmessage = (event) => {
    show(JSON.parse(event.data));
    connected(true);
  };
  source.onerror = () => connected(false);
};

// A page nobody looks at holds no connection and costs the server nothing.
document.addEventListener("visibilitychange", () => (document.hidden ? source?.close() : open()));
addEventListener("pagehide", () => source?.close());
addEventListener("pageshow", (event) => event.persisted && open());
open();
