// --- a unit is taken from the source ---------------------------------------------------------------------

function pickPair(view) {
  const {data, state} = view;
  const shown = data.pairs.map(pair => ({tiles: pair.images, labels: ["base", "source"], text: words(pair.factor)}));
  view.pick("Factor that differs", shown, state.pair, i => view.share({pair: i}));
}

function pairWords({data, valueOf}, pair) {
  const factor = data.factors.find(f => f.name === pair.factor);
  const change = `${words(pair.factor)}: ${pair.values.map(value => valueOf(factor, value)).join(" → ")}`;
  const text = pair.observational
    ? `${change} (two images matched on the other attributes: not causal)` : `do(${change})`;
  return element("span", {className: "muted"}, text);
}

const unitWord = site => site.name === "latent/codes" ? "code" : site.shape.length > 1 ? "channel" : "unit";

// A line of a list: a name, a bar, and numbers.
function listed(kind, properties, name, middle, ...numbers) {
  return element(kind, properties, element("span", {}, name), middle, ...numbers.map(text => element("span", {}, text)));
}

function swapTab(view) {
  const {data, state, term, thing} = view;
  const site = data.sites.find(site => site.name === data.code_site), pair = data.pairs[state.pair];
  view.ask(`Base and source (both decoded) differ in one factor. One ${thing} is taken from the `
    + "source; recovery 1: the image becomes the source's, 0: no nearer than before, below 0: further away.");
  pickPair(view);
  view.control(pairWords(view, pair));
  const effects = site.effect[state.pair], order = effects.map((_, u) => u).sort((a, b) => effects[b] - effects[a]);
  if (state.swapped === null || !(state.swapped in effects)) state.swapped = order[0];
  const head = listed("div", {className: "row swap head"}, thing, element("span", {}), "effect", term("recovery"));
  const rows = order.map(u => listed("button", {
    type: "button",
    className: `row swap${u === state.swapped ? " chosen" : ""}`,
    onclick: () => { state.swapped = u; view.draw(); view.find(".row.swap.chosen").focus(); },
  }, data.latents[u], bar(effects[u] / (pair.total || 1), u === state.swapped && "set"), number(effects[u]),
  number(site.recovery[state.pair][u])));
  const note = "Bars: the effect (l2) as a share of the distance between base and source.";
  view.fill(element("div", {className: "rows"}, head, ...rows), element("p", {className: "muted"}, note));
  seePatch(view, site, state.swapped, data.latents[state.swapped]);
}

function patchTab(view) {
  const {data, state} = view, site = data.sites[state.site], pair = data.pairs[state.pair];
  view.ask("Base and source (both decoded) differ in one factor. One channel of one layer has "
    + "its value in the source run, all others their own. Arrow keys move over the channels.");
  pickPair(view);
  const chooser = element("select", {onchange: event => { state.site = Number(event.target.value); state.unit = null; view.draw(); }},
    ...data.sites.map((s, i) => element("option", {value: i, selected: i === state.site}, `${s.name}  [${s.shape.join("×")}]`)));
  const colors = element("select", {onchange: event => { state.color = event.target.value; view.draw(); }},
    ...["effect", "recovery"].map(name => element("option", {value: name, selected: name === state.color}, name)));
  view.control(element("label", {}, "Layer ", chooser), element("label", {}, "Color ", colors), pairWords(view, pair));
  const effects = site.effect[state.pair];
  if (state.unit === null || !(state.unit in effects)) state.unit = effects.indexOf(Math.max(...effects));
  view.fill(cells(view, site, site[state.color][state.pair]));
  seePatch(view, site, state.unit, `${unitWord(site)} ${state.unit}`);
}

function cells(view, site, values) {
  const {state} = view, limit = Math.max(1e-9, ...values.map(value => Math.abs(value || 0)));
  const wide = values.length > 128 ? 2 * CHANNELS_IN_A_ROW : CHANNELS_IN_A_ROW;
  const grid = element("div", {className: "grid", role: "listbox", "aria-label": `${unitWord(site)}s of ${site.name}`});
  grid.style.gridTemplateColumns = `repeat(${Math.min(wide, Math.max(8, values.length))}, minmax(0, 1fr))`;
  grid.append(...values.map((value, u) => {
    const text = `${unitWord(site)} ${u}: effect ${number(site.effect[state.pair][u])}, recovery ${number(site.recovery[state.pair][u])}`;
    const cell = element("button", {type: "button", role: "option", title: text, tabIndex: u === state.unit ? 0 : -1});
    cell.setAttribute("aria-label", text);
    cell.setAttribute("aria-selected", u === state.unit);
    cell.style.background = css(value || 0, limit);
    cell.addEventListener("click", () => chooseUnit(view, site, grid, u));
    return cell;
  }));
  grid.addEventListener("keydown", event => {
    const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
    const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns}[event.key];
    const next = state.unit + (step || 0);
    if (!step || next < 0 || next >= values.length) return;
    event.preventDefault();
    chooseUnit(view, site, grid, next);
    grid.children[next].focus();
  });
  const ramp = element("i", {});
  const low = state.color === "recovery" && values.some(value => value < 0) ? -limit : 0;
  ramp.style.background = `linear-gradient(to right, ${css(low, limit)}, ${low ? "var(--zero), " : ""}${css(limit, limit)})`;
  const legend = element("div", {className: "legend muted"}, element("span", {}, number(low)), ramp,
    element("span", {}, `${number(limit)}   ${state.color} of one ${unitWord(site)}`));
  return element("div", {}, grid, legend);
}

function chooseUnit(view, site, grid, unit) {
  grid.children[view.state.unit].setAttribute("aria-selected", false);
  grid.children[view.state.unit].tabIndex = -1;
  view.state.unit = unit;
  grid.children[unit].setAttribute("aria-selected", true);
  grid.children[unit].tabIndex = 0;
  seePatch(view, site, unit, `${unitWord(site)} ${unit}`);
  view.remember();
}

function seePatch(view, site, unit, name) {
  const {data, state, term} = view, pair = data.pairs[state.pair], place = site.pictured[state.pair].indexOf(unit);
  const picture = place < 0 ? pair.decoded[0] : site.pictures[state.pair][place];
  const caption = place < 0 ? "not kept" : state.tab === "swap" ? "swapped" : "patched";
  view.look([pair.decoded[0], pair.decoded[1], picture, pair.decoded[0]], ["base", "source", caption], place < 0);
  const effect = site.effect[state.pair][unit], recovery = site.recovery[state.pair][unit];
  const lines = [
    [bold(name), ` of ${site.name}, from the source`],
    ["changes the image by ", bold(number(effect)), ` (l2)${shareOfWay(effect, pair)}`],
    [term("recovery"), " of the source's image: ", bold(recovery === null ? "–" : number(recovery))],
  ];
  const weak = "one of the weaker units: its numbers are kept, its picture is not";
  if (place < 0) lines.push([element("span", {className: "muted"}, weak)]);
  const responses = site.response && place >= 0 ? site.response[state.pair][place] : null;
  const chosen = site.name === data.code_site && !data.codes ? unit : -1;
  view.say(lines, responses, chosen, "How far it moves each latent, in standard deviations");
}

const shareOfWay = (effect, pair) =>
  pair.total > 0 ? `, ${percent(effect / pair.total)} of the ${number(pair.total)} between base and source` : "";
