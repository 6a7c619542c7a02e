// --- the circuit of a factor -----------------------------------------------------------------------------

const LAYER = 26, TOP = 46, RADIUS = 10;  // pixels: between units of a column, above the first, of a unit
const WIDEST = 7;  // pixels: the line of the strongest edge

// Units and edges of one factor as parts that can be chosen: their names, places, ends, and what is said of them.
function partsOf({data}, circuit) {
  const {sites} = data.circuits, short = site => site.slice(site.indexOf("/") + 1);
  const noun = site => {
    const found = data.sites.find(s => s.name === site);
    return site === data.code_site ? "z" : `${found && found.shape.length > 1 ? "channel" : "unit"} `;
  };
  const units = circuit.units.map((unit, i) => ({
    ...unit, i, kind: "unit", layer: sites.indexOf(unit.site) + 1, name: `${unit.site}:${unit.unit}`,
    label: unit.site === data.code_site ? `z${unit.unit}` : String(unit.unit),
    words: `${noun(unit.site)}${unit.unit}`, place: ` of ${unit.site}`,
    short: unit.site === data.code_site ? `z${unit.unit}` : `${short(unit.site)} ${unit.unit}`,
  }));
  const edges = circuit.edges.map(edge => {
    const [from, to] = edge.ends.map(end => units[end]);
    return {
      ...edge, kind: "edge", from, to, layer: from.layer + 0.5, height: (from.height + to.height) / 2,
      name: `${from.name}>${to.name}`, words: `${from.words} → ${to.words}`, place: ` (${from.site} → ${to.site})`,
      short: `${from.short} → ${to.short}`,
    };
  });
  const strongest = (a, b) => Math.abs(b.effect) - Math.abs(a.effect);
  return {units: units.sort(strongest), edges: edges.sort(strongest)};
}

const share = value => `${number(100 * value, 1)}\u00a0%`;
const shareWords = ({effect, error}) => `${share(effect)} ± ${share(error)}`;

function circuitTab(view) {
  const {data, state} = view, circuits = data.circuits, pair = data.pairs[state.pair];
  const circuit = circuits?.factors[state.pair];
  const missing = !circuits ? "This page was made before circuits were drawn." : circuits.missing || circuit.missing;
  view.ask("Base and source (both decoded) differ in one factor. One edge alone is patched: its sender has its value of "
    + "the source run, and only its receiver sees that. Choose an edge or a unit, or move over the graph with the arrow keys.");
  pickPair(view);
  view.control(pairWords(view, pair));
  if (missing) {
    view.look([pair.decoded[0], pair.decoded[1], pair.decoded[0], pair.decoded[0]], ["base", "source", "none"], true);
    view.say([]);
    view.fill(element("p", {className: "muted"}, missing));
    return;
  }
  const parts = partsOf(view, circuit), all = [...parts.edges, ...parts.units];
  const chosen = all.find(part => part.name === state.part) || all[0];
  state.part = chosen.name;
  const shown = {view, pair, circuits, parts, all, drawn: new Map(), rows: new Map()};
  const note = `Of ${circuits.sizes.join(" + ")} edges the ${parts.edges.length} strongest by gradients, each then measured by `
    + `runs of ${circuits.num} pairs. Lines are as wide as effects; dashed: away from the source's image.`;
  view.fill(graphOf(shown), element("p", {className: "muted"}, note), listOf(shown, parts.edges, "edge"),
    element("details", {className: "units"}, element("summary", {}, "Units on the way"), listOf(shown, parts.units, "unit")));
  choosePart(shown, chosen);
}

// --- the graph ---

function graphOf(shown) {
  const {view, pair, parts, circuits} = shown, {sites} = circuits;
  const width = Math.max(240, Math.min(680, view.find(".body").clientWidth || 560));
  const tallest = Math.max(...sites.map((_, i) => parts.units.filter(unit => unit.layer === i + 1).length));
  const height = TOP + LAYER * tallest, margin = width < 420 ? 32 : 44;
  const at = (layer, place) => (
    [margin + (width - 2 * margin) * layer / (sites.length + 1), TOP + (1 - place) * LAYER * tallest]);
  const ends = {from: at(0, 0.5), to: at(sites.length + 1, 0.5)};
  for (const unit of parts.units) unit.at = at(unit.layer, unit.height);
  const first = parts.units.filter(unit => unit.layer === 1), last = parts.units.filter(unit => unit.layer === sites.length);
  const backdrop = drawn("g", {"aria-hidden": "true"},
    ...first.map(unit => drawn("path", {class: "pale", d: curve(ends.from, unit.at)})),
    ...last.map(unit => drawn("path", {class: "pale", d: curve(unit.at, ends.to)})),
    ...sites.flatMap((site, i) => heading(site.split(/(?<=\/)/), at(i + 1, 1)[0])),
    drawn("text", {class: "end from", x: 2, y: ends.from[1]}, cut(words(pair.factor), width < 420 ? 12 : 18)),
    drawn("text", {class: "end to", x: width - 2, y: ends.to[1]}, "image"));
  const strongest = Math.max(1e-9, ...parts.edges.map(edge => Math.abs(edge.effect)));
  const svg = drawn("svg", {
    class: "circuit", viewBox: `0 0 ${width} ${height}`, role: "listbox",
    "aria-label": `Circuit of ${words(pair.factor)}: units and edges, by ${sites.join(", ")}`,
  }, backdrop, ...parts.edges.map(edge => edgeOf(shown, edge, strongest)), ...parts.units.map(unit => unitOf(shown, unit)));
  svg.addEventListener("keydown", event => walk(shown, event));
  return svg;
}

const curve = ([x0, y0], [x1, y1]) => `M${x0} ${y0}C${(x0 + x1) / 2} ${y0} ${(x0 + x1) / 2} ${y1} ${x1} ${y1}`;

const cut = (text, most) => text.length > most ? `${text.slice(0, most - 1)}…` : text;

const heading = (lines, x) => lines.map((line, i) =>
  drawn("text", {class: "heading", x, y: 12 + 13 * (i + 2 - lines.length)}, line));

function edgeOf(shown, edge, strongest) {
  const width = Math.abs(edge.effect) / strongest, d = curve(edge.from.at, edge.to.at);
  const line = drawn("path", {class: `line${edge.effect < 0 ? " below" : ""}`, d,
    "stroke-width": 0.8 + WIDEST * width, "stroke-opacity": 0.4 + 0.5 * width});
  return partOf(shown, edge, "edge", drawn("path", {class: "touch", d}), line);
}

function unitOf(shown, unit) {
  const [cx, cy] = unit.at;
  return partOf(shown, unit, "unit", drawn("circle", {cx, cy, r: RADIUS}), drawn("text", {x: cx, y: cy}, unit.label));
}

function partOf(shown, part, kind, ...children) {
  const told = `${part.words}${part.place}: ${shareWords(part)} of the effect`;
  const group = drawn("g", {class: kind, role: "option", "aria-label": told}, drawn("title", {}, told), ...children);
  group.addEventListener("click", () => { choosePart(shown, part); group.focus(); });
  group.addEventListener("focus", () => choosePart(shown, part));
  group.addEventListener("pointerenter", () => seePart(shown, part));
  group.addEventListener("pointerleave", () => seePart(shown, shown.all.find(p => p.name === shown.view.state.part)));
  shown.drawn.set(part, group);
  return group;
}

// Left and right follow the strongest edge, up and down go through a column of units, or of edges.
function walk(shown, event) {
  const {all, parts, view, drawn} = shown, here = all.find(part => part.name === view.state.part);
  const column = all.filter(part => part.layer === here.layer).sort((a, b) => b.height - a.height);
  const next = {
    ArrowRight: () => here.to || parts.edges.find(edge => edge.from === here),
    ArrowLeft: () => here.from || parts.edges.find(edge => edge.to === here),
    ArrowDown: () => column[column.indexOf(here) + 1],
    ArrowUp: () => column[column.indexOf(here) - 1],
  }[event.key];
  if (!next) return;
  event.preventDefault();
  const found = next();
  if (!found) return;
  choosePart(shown, found);
  drawn.get(found).focus();
}

// --- the list ---

function listOf(shown, parts, kind) {
  const {view} = shown, largest = Math.max(1e-9, ...parts.map(part => Math.abs(part.effect)));
  const name = kind === "edge" ? view.term("edge") : "unit";
  const head = listed("div", {className: "row part head"}, name, element("span", {}), "effect", "± error");
  return element("div", {className: "rows"}, head, ...parts.map(part => {
    const row = listed("button", {type: "button", className: "row part", onclick: () => choosePart(shown, part)},
      part.short, bar(Math.abs(part.effect) / largest, part.effect < 0 && "below"),
      share(part.effect), share(part.error));
    shown.rows.set(part, row);
    return row;
  }));
}

// --- what is chosen ---

function choosePart(shown, chosen) {
  shown.view.state.part = chosen.name;
  for (const part of shown.all) {
    const here = part === chosen, group = shown.drawn.get(part), row = shown.rows.get(part);
    group.setAttribute("aria-selected", here);
    group.setAttribute("tabindex", here ? 0 : -1);
    group.classList.toggle("chosen", here);
    row.setAttribute("aria-pressed", here);
    row.classList.toggle("chosen", here);
  }
  seePart(shown, chosen);
  shown.view.remember();
}

function seePart({view, pair, circuits}, part) {
  view.look([pair.decoded[0], pair.decoded[1], part.picture, pair.decoded[0]], ["base", "source", `${part.kind} patched`]);
  const what = part.kind === "edge" ? [", this ", view.term("edge"), " alone"] : [" alone, from the source"];
  view.say([
    [bold(part.words), part.place, ...what],
    ["carries ", bold(shareWords(part)), ` of the effect of ${words(pair.factor)} (mean and standard error, ${circuits.num} pairs)`],
    ["in this pair it moves the image by ", bold(number(part.moved)), ` (l2)${shareOfWay(part.moved, pair)}`],
  ]);
}
