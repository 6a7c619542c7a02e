// Runs the explorer's script as a browser would, on a document just large enough for it, and prints what the explorer
// shows after each touch, as JSON:  node explorer_dom.mjs explorer.js page.json [page|widget|beside|widgets]

import {readFileSync} from "node:fs";
import {pathToFileURL} from "node:url";

const TAG = /<(\/?)(\w+)([^>]*)>|([^<]+)/g, ATTRIBUTE = /([\w-]+)(?:="([^"]*)")?/g, SIMPLE = /\.[\w-]+|\[[^\]]+\]|^\w+/g;
const camel = name => name.replace(/-(\w)/g, (_, letter) => letter.toUpperCase());

class Element {
  constructor(name) {
    Object.assign(this, {name, className: "", title: "", type: "", value: "", min: 0, max: 0, step: 0, hidden: false,
      selected: false, tabIndex: 0, innerHTML: "", onclick: null, onchange: null, onkeydown: null});
    Object.assign(this, {children: [], parent: null, dataset: {}, style: {}, attributes: {}, listeners: {}, painted: null});
  }
  get classes() { return this.className.split(" ").filter(Boolean); }
  get classList() {
    const set = names => { this.className = names.join(" "); };
    return {
      add: name => set([...new Set([...this.classes, name])]),
      remove: name => set(this.classes.filter(other => other !== name)),
      toggle(name, on) { on ? this.add(name) : this.remove(name); },
    };
  }
  get textContent() {
    return this.innerHTML.replace(/<[^>]*>/g, "") + this.children.map(c => typeof c === "string" ? c : c.textContent).join("");
  }
  set textContent(text) { this.children = [String(text)]; }
  get nextElementSibling() { return this.parent.children[this.parent.children.indexOf(this) + 1]; }
  append(...made) {
    for (const child of made) if (child instanceof Element) child.parent = this;
    this.children.push(...made);
  }
  replaceChildren(...made) { this.children = []; this.append(...made); }
  setAttribute(name, value) {
    this.attributes[name] = String(value);
    if (name === "class") this.className = value;
    if (name === "hidden") this.hidden = true;
    if (name.startsWith("data-")) this.dataset[camel(name.slice(5))] = value;
  }
  addEventListener(name, listener) { this.listeners[name] = listener; }
  insertAdjacentHTML(_, html) {
    let place = this;
    for (const [, closes, name, attributes, text] of html.matchAll(TAG)) {
      if (text !== undefined) { if (text.trim()) place.append(text.trim()); continue; }
      if (closes) { place = place.parent; continue; }
      const made = new Element(name);
      for (const [, key, value] of attributes.matchAll(ATTRIBUTE)) made.setAttribute(key, value ?? "");
      place.append(made);
      place = made;
    }
  }
  matches(simple) {
    return simple.match(SIMPLE).every(part => {
      if (part[0] === ".") return this.classes.includes(part.slice(1));
      if (part[0] !== "[") return this.name === part;
      const [key, value] = part.slice(1, -1).split("=");
      return value === undefined ? key in this.attributes : this.attributes[key] === value;
    });
  }
  querySelectorAll(selector) {
    const [first, ...rest] = selector.split(" ");
    const below = this.children.filter(c => c instanceof Element);
    const found = below.flatMap(c => [...(c.matches(first) ? [c] : []), ...c.querySelectorAll(first)]);
    return rest.length ? found.flatMap(c => c.querySelectorAll(rest.join(" "))) : found;
  }
  querySelector(selector) { return this.querySelectorAll(selector)[0] ?? null; }
  getContext() {
    return {createImageData: (w, h) => ({data: new Uint8ClampedArray(4 * w * h)}), putImageData: image => { this.painted = [...image.data]; }};
  }
  focus() {}
}

const body = new Element("body");
class Observer {
  constructor(callback) { this.callback = callback; }
  observe(target) { this.callback([{isIntersecting: true, target}]); }
  unobserve() {}
}
Object.assign(globalThis, {
  document: {createElement: name => new Element(name), createElementNS: (_, name) => new Element(name), querySelectorAll: selector => body.querySelectorAll(selector)},
  IntersectionObserver: Observer, addEventListener() {}, location: {hash: ""}, history: {replaceState: (_, __, hash) => { location.hash = hash; }},
  getComputedStyle: element => ({gridTemplateColumns: element.style.gridTemplateColumns.replace(/repeat\((\d+).*/, (_, n) => "x ".repeat(n).trim())}),
});

const [, , code, data, front] = process.argv, page = readFileSync(data, "utf8");
const module = await import(pathToFileURL(code));
const several = ["beside", "widgets"].includes(front);
const named = several ? [["one", page], ["other", page]] : [["", page]];
if (front.startsWith("widget")) {
  const el = new Element("div"), pages = several ? named.map(([title, text]) => [title, JSON.parse(text)]) : [];
  body.append(el);
  module.default.render({model: {get: name => ({page: several ? {} : JSON.parse(page), pages})[name]}, el});
} else {
  body.insertAdjacentHTML("beforeend", `<div class="explorer" data-address${several ? " data-beside" : ""}></div>`);
  for (const [title, text] of named) {
    const script = new Element("script");
    script.setAttribute("data-title", title);
    script.append(text);
    body.children[0].append(script);
  }
  module.watch();
}
const find = selector => body.querySelector(selector), all = selector => body.querySelectorAll(selector);
while (!find(".row")) await new Promise(resolve => setTimeout(resolve, 5));

const seen = () => ({
  about: find(".about").textContent,
  question: find(".question").textContent,
  said: find(".said").children.map(line => line.textContent),
  captions: all(".image span").map(span => span.textContent),
  changed: all(".image canvas")[2].painted,
  hash: location.hash,
});
const shown = [seen()];
const press = (element, key) => element.listeners.keydown({key, preventDefault() {}});
if (several) {
  const saids = () => all(".said").map(said => said.children[0].textContent);
  const of = () => ({said: saids(), changed: all(".image canvas").filter((_, i) => i % 4 === 2).map(c => c.painted), hash: location.hash});
  const touched = [of()];
  const slider = all(".model")[1].querySelectorAll(".row input")[1];
  slider.value = 0;
  slider.listeners.input();
  touched.push(of());
  all(".picker button")[1].onclick();
  touched.push(of());
  find("[data-tab=circuit]").onclick();
  touched.push(of());
  console.log(JSON.stringify(touched));
} else {
  const slider = all(".row input")[1];
  slider.value = 0;
  slider.listeners.input();
  shown.push(seen());
  find("[data-tab=swap]").onclick();
  shown.push(seen());
  find("[data-tab=patch]").onclick();
  all(".picker button").at(-1).onclick();
  shown.push(seen());
  const grid = find(".grid");
  press(grid, "ArrowRight");
  shown.push({...seen(), chosen: grid.children.findIndex(cell => cell.attributes["aria-selected"] === "true")});
  find("[data-tab=circuit]").onclick();
  const parts = () => ({...seen(), chosen: all("[aria-selected=true]").map(part => part.attributes["aria-label"]),
    rows: all(".row.part.chosen").map(row => row.textContent), stops: all("[role=option]").filter(
      part => part.attributes.tabindex === "0").length, drawn: all(".line").length});
  shown.push(parts());
  press(find(".circuit"), "ArrowLeft");
  shown.push(parts());
  all(".row.part").at(-1).onclick();
  shown.push(parts());
  all(".circuit .edge")[1].listeners.pointerenter();
  shown.push(parts());
  console.log(JSON.stringify(shown));
}
