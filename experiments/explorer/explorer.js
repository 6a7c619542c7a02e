// The explorer of trained models: an ES module, for a page (`watch`) and for a notebook (anywidget calls `render` of the
// default export). What it shows is the JSON of packing.py.

const GAIN = 4;  // of the difference image
const CHANNELS_IN_A_ROW = 16, FACTORS_SHOWN = 12;
const OWN = "own";  // state.stop where a latent has the image's own value; null where nobody has moved it yet
let made = 0;  // explorers on this page

const PARTS = `
  <p class="which" hidden><label>Data set <select></select></label></p>
  <p class="muted about"></p>
  <div class="tabs" role="tablist">
    <button role="tab" data-tab="move">Move a latent</button>
    <button role="tab" data-tab="swap">Swap a latent</button>
    <button role="tab" data-tab="patch">Patch a channel</button>
  </div>
  <div class="columns" role="tabpanel">
    <div class="left" role="group" aria-label="What is seen" tabindex="0">
      <div class="seen">
        <div class="images">
          <div class="image"><canvas role="img"></canvas><span></span></div>
          <div class="image"><canvas role="img"></canvas><span></span></div>
          <div class="image changed"><canvas role="img"></canvas><span></span></div>
          <div class="image"><canvas role="img"></canvas><span></span></div>
        </div>
        <div class="said" aria-live="polite"></div>
      </div>
      <div class="after"></div>
    </div>
    <div class="asked">
      <p class="muted question"></p>
      <div class="picker" role="group"></div>
      <div class="controls"></div>
      <div class="body"></div>
    </div>
  </div>
  <details class="glossary"><summary>What the words mean</summary><dl></dl></details>
  <p class="muted kept"></p>
`;

// --- images -----------------------------------------------------------------------------------------

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Int8Array(await new Response(stream).arrayBuffer());
}

// Each image is an earlier one plus steps of so many levels: see tiles.py.
function reader(packed, stored) {
  const [height, width, channels] = packed.shape, size = height * width * channels, known = new Map();
  function levels(number) {
    if (!known.has(number)) {
      const reference = packed.references[number], image = new Int16Array(size);
      const before = reference < 0 ? null : levels(reference), step = before ? packed.step : packed.first_step;
      for (let i = 0, j = number * size; i < size; i++, j++)
        image[i] = (before ? before[i] : packed.middle) + step * stored[j];
      known.set(number, image);
    }
    return known.get(number);
  }
  function paint(canvas, pixel) {
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d"), image = context.createImageData(width, height);
    for (let i = 0; i < height * width; i++) image.data.set(pixel(i), 4 * i);
    context.putImageData(image, 0, 0);
  }
  const plane = height * width, last = channels - 1;
  return {
    show(canvas, number) {
      const image = levels(number);
      paint(canvas, i => [image[i], image[i + Math.min(1, last) * plane], image[i + Math.min(2, last) * plane], 255]);
    },
    showDifference(canvas, one, other) {
      const a = levels(one), b = levels(other);
      paint(canvas, i => {
        let most = 0;
        for (let c = 0; c < channels; c++) most = Math.max(most, Math.abs(a[i + c * plane] - b[i + c * plane]));
        return [...shade(Math.min(1, GAIN * most / 255), [31, 41, 51]), 255];
      });
    },
  };
}

// --- words and colors --------------------------------------------------------------------------------

const shade = (share, color) => color.map(c => Math.round(255 + share * (c - 255)));
function css(value, limit) {
  const share = 100 * Math.min(1, Math.abs(value) / limit);
  return `color-mix(in srgb, var(${value < 0 ? "--below" : "--above"}) ${share.toFixed(1)}%, var(--zero))`;
}
function number(value, places = 2) {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(places);
  return text.replace(/^-(?=0[.0]*$)/, "").replace("-", "−");
}
const signed = value => (value > 0 ? "+" : "") + number(value);
const percent = value => `${number(100 * value, 0)}\u00a0%`;
const words = name => name.replaceAll("_", " ");

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties))
    key in made ? made[key] = value : made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Words of a page are nodes, never HTML: names come from whoever made the data set or the model.
const bold = text => element("b", {}, text);

function bar(share, set = false) {
  const inner = element("i", {className: set ? "set" : ""});
  inner.style.width = `${100 * Math.max(0, Math.min(1, share || 0))}%`;
  return element("span", {className: "bar"}, inner);
}

// --- one model -----------------------------------------------------------------------------------------

function explorer(root, title, data, images, state, chosen) {
  const find = selector => root.querySelector(selector);
  const canvases = [...root.querySelectorAll(".image canvas")];
  const thing = data.codes ? "code" : "latent", id = `explorer${made += 1}`;
  const term = name => element("abbr", {title: data.words?.[name] || ""}, name);
  find(".about").textContent = data.about.text || "";
  find(".kept").textContent = `Pictures are kept to within ${data.tiles.step / 2} of 255 levels; numbers were computed before.`
    + ("address" in root.dataset ? " The page's address keeps what is shown: copy it to share it." : "");
  find(".glossary dl").replaceChildren(...Object.entries(data.words || {}).flatMap(
    ([name, meaning]) => [element("dt", {}, name), element("dd", {}, meaning)]));
  find(".glossary").hidden = !data.words;
  find("[data-tab=move]").textContent = `Move a ${thing}`;
  find("[data-tab=swap]").textContent = `Swap a ${thing}`;

  function look(numbers, captions) {
    canvases.forEach((canvas, i) => {
      if (i < 3) images.show(canvas, numbers[i]);
      const caption = i < 3 ? captions[i] : `difference ×${GAIN}`;
      canvas.nextElementSibling.textContent = caption;
      canvas.setAttribute("aria-label", caption);
    });
    images.showDifference(canvases[3], numbers[2], numbers[3]);
  }

  function say(lines, responses, chosen, title) {
    find(".said").replaceChildren(...lines.map(parts => element("p", {}, ...parts)));
    find(".after").replaceChildren();
    if (!responses) return;
    const largest = Math.max(1, ...responses.map(value => value || 0));
    const rows = responses.flatMap((value, i) => [
      element("span", {className: i === chosen ? "set" : ""}, data.latents[i]),
      bar(value / largest, i === chosen),
      element("em", {}, number(value)),
    ]);
    find(".after").append(element("p", {className: "muted"}, title), element("div", {className: "responses"}, ...rows));
  }

  function pick(title, options, chosen, choose) {
    find(".picker").setAttribute("aria-label", title);
    find(".picker").replaceChildren(...options.map(({tiles, labels, text}, i) => {
      const small = tiles.map((tile, t) => {
        const canvas = element("canvas", {role: "img", "aria-label": labels[t]});
        images.show(canvas, tile);
        return canvas;
      });
      const button = element("button", {type: "button", title: text, onclick: () => choose(i)}, ...small);
      button.append(element("span", {}, text));
      button.setAttribute("aria-pressed", i === chosen);
      return button;
    }));
  }

  // --- tab 1: a latent is moved ---

  function stops(start, m) {
    const own = {value: start.own[m], own: true, effect: 0, picture: start.decoded, response: data.latents.map(() => 0)};
    const others = data.moves.values[m].map((value, v) => ({
      value, effect: start.effect[m][v], picture: start.pictures[m][v], response: start.response[m][v],
    }));
    return data.codes ? [own, ...others] : [...others, own].sort((a, b) => a.value - b.value);
  }

  function farthest(start) {
    const effects = stops(start, Math.max(0, data.moves.latents.indexOf(state.latent))).map(stop => stop.effect || 0);
    return effects.indexOf(Math.max(...effects));
  }

  function move() {
    const start = data.moves.starts[state.start];
    if (state.stop === null) state.stop = farthest(start);
    find(".question").textContent = data.codes
      ? "One code of an image's map is replaced by another one in use: first its own, then the most used ones."
      : "do(z := value): one latent is set, all others stay. Strongest first; sliders start at the image's own value.";
    const offered = data.moves.starts.map((s, i) => ({tiles: [s.image], labels: [factorsOf(s.factors)], text: `image ${i + 1}`}));
    pick("Image to start from", offered, state.start, i => { state.start = i; state.stop = null; draw(); });
    const reset = element("button", {type: "button", onclick: () => { state.stop = OWN; draw(); }}, "Back to its own");
    find(".controls").replaceChildren(reset, element("span", {className: "muted"}, factorsOf(start.factors)));
    const strongest = Math.max(...data.strengths.ces.map(value => value || 0));
    const head = element("div", {className: "row head"}, element("span", {}, thing), element("span", {}),
      element("span", {}, "value"), element("span", {}, term("CES")));
    const rows = data.moves.latents.map((latent, m) => slider(start, latent, m, strongest));
    find(".body").replaceChildren(element("div", {className: "rows"}, head, ...rows));
    seeMove(start);
  }

  function slider(start, latent, m, strongest) {
    const offered = stops(start, m), home = offered.findIndex(stop => stop.own);
    const chosen = latent === state.latent;
    const at = chosen && state.stop !== OWN ? state.stop : home;
    const text = stop => data.codes ? String(stop.value) : signed(stop.value);
    const value = element("span", {}, text(offered[at]));
    const input = element("input", {type: "range", min: 0, max: offered.length - 1, step: 1});
    input.value = at;
    const label = element("span", {}, data.latents[latent]);
    const strength = element("span", {className: "strength"}, bar(data.strengths.ces[latent] / strongest),
      element("span", {}, number(data.strengths.ces[latent])));
    const row = element("label", {className: `row${chosen ? " chosen" : ""}`}, label, input, value, strength);
    input.setAttribute("aria-label", `${data.latents[latent]} of image ${state.start + 1}`);
    input.addEventListener("input", () => {
      for (const other of root.querySelectorAll(".row")) if (other !== row) other.rest?.();
      root.querySelectorAll(".row.chosen").forEach(other => other.classList.remove("chosen"));
      row.classList.add("chosen");
      Object.assign(state, {latent, stop: Number(input.value)});
      const stop = offered[state.stop];
      value.textContent = text(stop);
      input.setAttribute("aria-valuetext", text(stop));
      seeMove(start);
      remember();
    });
    row.rest = () => { input.value = home; value.textContent = text(offered[home]); };
    return row;
  }

  function seeMove(start) {
    find(".image.changed").classList.remove("missing");
    const m = Math.max(0, data.moves.latents.indexOf(state.latent)), latent = data.moves.latents[m];
    const offered = stops(start, m), own = offered.find(stop => stop.own);
    const stop = state.stop === OWN ? own : offered[state.stop], s = data.strengths, name = data.latents[latent];
    look([start.image, start.decoded, stop.picture, start.decoded], ["input", "decoded", `${name} moved`]);
    const value = data.codes ? stop.value : signed(stop.value), before = data.codes ? own.value : signed(own.value);
    const share = s.ces[latent] > 0 && !stop.own ? `, ${percent(stop.effect / s.ces[latent])} of its CES` : "";
    say([
      stop.own ? [bold(name), ` has its own value, ${before}`] : [bold(`do(${name} := ${value})`), `, from ${before}`],
      ["this move changes the image by ", bold(number(stop.effect)), ` (l2)${share}`],
      [`${name}: `, term("CES"), ` ${number(s.ces[latent])} ± ${number(s.ces_error[latent])}, `, term("specificity"),
        ` ${number(s.specificity[latent])}`, ...(data.codes ? [] : [", ", term("KL"), ` ${number(s.activity[latent])} nats`])],
    ], stop.response, latent, data.codes
      ? "Codes that are another after decoding and encoding again (1: changed)"
      : "How far each latent moved after decoding and encoding again, in its standard deviations");
  }

  // Values count from 1, "3 of 8", with the class's name where it has one; an attribute is there or is not.
  const attributes = data.pairs.some(pair => pair.observational);
  function valueOf({name, size}, value) {
    const called = data.about.classes?.[name]?.[value];
    if (called === undefined && attributes && size === 2) return value ? "yes" : "no";
    return `${value + 1} of ${size}${called === undefined ? "" : `, ${called}`}`;
  }

  function factorsOf(values) {
    const shown = data.factors.map((f, k) => `${words(f.name)} ${valueOf(f, values[k])}`).slice(0, FACTORS_SHOWN);
    if (data.factors.length > FACTORS_SHOWN) shown.push(`${data.factors.length - FACTORS_SHOWN} more`);
    return shown.join(" · ");
  }

  // --- tabs 2 and 3: a unit is taken from the source ---

  function pairs() {
    const shown = data.pairs.map(pair => ({tiles: pair.images, labels: ["base", "source"], text: words(pair.factor)}));
    pick("Factor that differs", shown, state.pair, i => { state.pair = i; draw(); });
  }

  function pairWords(pair) {
    const factor = data.factors.find(f => f.name === pair.factor);
    const change = `${words(pair.factor)}: ${pair.values.map(value => valueOf(factor, value)).join(" → ")}`;
    return pair.observational ? `${change} (two images matched on the other attributes: not causal)` : `do(${change})`;
  }

  function swap() {
    const site = data.sites.find(site => site.name === data.code_site), pair = data.pairs[state.pair];
    find(".question").textContent = `Base and source (both decoded) differ in one factor. One ${thing} is taken from the `
      + "source; recovery 1: the image becomes the source's, 0: no nearer than before, below 0: further away.";
    pairs();
    find(".controls").replaceChildren(element("span", {className: "muted"}, pairWords(pair)));
    const effects = site.effect[state.pair], order = effects.map((_, u) => u).sort((a, b) => effects[b] - effects[a]);
    if (state.swapped === null || !(state.swapped in effects)) state.swapped = order[0];
    const line = (kind, properties, name, middle, ...numbers) =>
      element(kind, properties, element("span", {}, name), middle, ...numbers.map(text => element("span", {}, text)));
    const head = line("div", {className: "row swap head"}, thing, element("span", {}), "effect", term("recovery"));
    const rows = order.map(u => line("button", {
      type: "button",
      className: `row swap${u === state.swapped ? " chosen" : ""}`,
      onclick: () => { state.swapped = u; draw(); find(".row.swap.chosen").focus(); },
    }, data.latents[u], bar(effects[u] / (pair.total || 1), u === state.swapped), number(effects[u]), number(site.recovery[state.pair][u])));
    const note = "Bars: the effect (l2) as a share of the distance between base and source.";
    find(".body").replaceChildren(element("div", {className: "rows"}, head, ...rows), element("p", {className: "muted"}, note));
    seePatch(site, state.swapped, data.latents[state.swapped]);
  }

  function patch() {
    const site = data.sites[state.site], pair = data.pairs[state.pair];
    find(".question").textContent = "Base and source (both decoded) differ in one factor. One channel of one layer has "
      + "its value in the source run, all others their own. Arrow keys move over the channels.";
    pairs();
    const chooser = element("select", {onchange: event => { state.site = Number(event.target.value); state.unit = null; draw(); }},
      ...data.sites.map((s, i) => element("option", {value: i, selected: i === state.site}, `${s.name}  [${s.shape.join("×")}]`)));
    const colors = element("select", {onchange: event => { state.color = event.target.value; draw(); }},
      ...["effect", "recovery"].map(name => element("option", {value: name, selected: name === state.color}, name)));
    find(".controls").replaceChildren(element("label", {}, "Layer ", chooser), element("label", {}, "Color ", colors),
      element("span", {className: "muted"}, pairWords(pair)));
    const effects = site.effect[state.pair];
    if (state.unit === null || !(state.unit in effects)) state.unit = effects.indexOf(Math.max(...effects));
    find(".body").replaceChildren(cells(site, site[state.color][state.pair]));
    seePatch(site, state.unit, `${unitWord(site)} ${state.unit}`);
  }

  const unitWord = site => site.name === "latent/codes" ? "code" : site.shape.length > 1 ? "channel" : "unit";

  function cells(site, values) {
    const limit = Math.max(1e-9, ...values.map(value => Math.abs(value || 0)));
    const wide = values.length > 128 ? 2 * CHANNELS_IN_A_ROW : CHANNELS_IN_A_ROW;
    const grid = element("div", {className: "grid", role: "listbox", "aria-label": `${unitWord(site)}s of ${site.name}`});
    grid.style.gridTemplateColumns = `repeat(${Math.min(wide, Math.max(8, values.length))}, minmax(0, 1fr))`;
    grid.append(...values.map((value, u) => {
      const text = `${unitWord(site)} ${u}: effect ${number(site.effect[state.pair][u])}, recovery ${number(site.recovery[state.pair][u])}`;
      const cell = element("button", {type: "button", role: "option", title: text, tabIndex: u === state.unit ? 0 : -1});
      cell.setAttribute("aria-label", text);
      cell.setAttribute("aria-selected", u === state.unit);
      cell.style.background = css(value || 0, limit);
      cell.addEventListener("click", () => chooseUnit(site, grid, u));
      return cell;
    }));
    grid.addEventListener("keydown", event => {
      const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
      const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns}[event.key];
      const next = state.unit + (step || 0);
      if (!step || next < 0 || next >= values.length) return;
      event.preventDefault();
      chooseUnit(site, grid, next);
      grid.children[next].focus();
    });
    const ramp = element("i", {});
    const low = state.color === "recovery" && values.some(value => value < 0) ? -limit : 0;
    ramp.style.background = `linear-gradient(to right, ${css(low, limit)}, ${low ? "var(--zero), " : ""}${css(limit, limit)})`;
    const legend = element("div", {className: "legend muted"}, element("span", {}, number(low)), ramp,
      element("span", {}, `${number(limit)}   ${state.color} of one ${unitWord(site)}`));
    return element("div", {}, grid, legend);
  }

  function chooseUnit(site, grid, unit) {
    grid.children[state.unit].setAttribute("aria-selected", false);
    grid.children[state.unit].tabIndex = -1;
    state.unit = unit;
    grid.children[unit].setAttribute("aria-selected", true);
    grid.children[unit].tabIndex = 0;
    seePatch(site, unit, `${unitWord(site)} ${unit}`);
    remember();
  }

  function seePatch(site, unit, name) {
    const pair = data.pairs[state.pair], place = site.pictured[state.pair].indexOf(unit);
    const picture = place < 0 ? pair.decoded[0] : site.pictures[state.pair][place];
    look([pair.decoded[0], pair.decoded[1], picture, pair.decoded[0]], ["base", "source", place < 0 ? "not kept" : state.tab === "swap" ? "swapped" : "patched"]);
    find(".image.changed").classList.toggle("missing", place < 0);
    const effect = site.effect[state.pair][unit], recovery = site.recovery[state.pair][unit];
    const lines = [
      [bold(name), ` of ${site.name}, from the source`],
      ["changes the image by ", bold(number(effect)),
        " (l2)" + (pair.total > 0 ? `, ${percent(effect / pair.total)} of the ${number(pair.total)} between base and source` : "")],
      [term("recovery"), " of the source's image: ", bold(recovery === null ? "–" : number(recovery))],
    ];
    const weak = "one of the weaker units: its numbers are kept, its picture is not";
    if (place < 0) lines.push([element("span", {className: "muted"}, weak)]);
    const responses = site.response && place >= 0 ? site.response[state.pair][place] : null;
    const chosen = site.name === data.code_site && !data.codes ? unit : -1;
    say(lines, responses, chosen, "How far it moves each latent, in standard deviations");
  }

  // --- all tabs ---

  const tabs = {move, swap, patch}, panel = find("[role=tabpanel]");
  panel.setAttribute("id", `${id}-panel`);
  function draw() {
    for (const button of root.querySelectorAll("[role=tab]")) {
      const chosen = button.dataset.tab === state.tab;
      button.setAttribute("aria-selected", chosen);
      button.tabIndex = chosen ? 0 : -1;
    }
    panel.setAttribute("aria-labelledby", `${id}-${state.tab}`);
    tabs[state.tab]();
    remember();
  }
  for (const button of root.querySelectorAll("[role=tab]")) {
    button.setAttribute("id", `${id}-${button.dataset.tab}`);
    button.setAttribute("aria-controls", `${id}-panel`);
    button.onclick = () => { state.tab = button.dataset.tab; draw(); };
    button.onkeydown = event => {
      const names = Object.keys(tabs), step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
      if (!step) return;
      state.tab = names[(names.indexOf(state.tab) + step + names.length) % names.length];
      draw();
      find(`[data-tab=${state.tab}]`).focus();
    };
  }

  let untouched = true;
  function remember() {
    if (untouched || !("address" in root.dataset)) return;
    const kept = Object.entries({model: title, ...state, site: data.sites[state.site].name}).filter(
      ([, value]) => value !== null && value !== "");
    const before = root.dataset.address ? `${root.dataset.address}&` : "";
    try { history.replaceState(null, "", `#${before}${new URLSearchParams(kept)}`); } catch { /* some browsers refuse for files */ }
  }
  draw();
  untouched = false;
  if (chosen) remember();
}

// What the page's address says of this explorer: nothing where it speaks of another one, or of none.
function addressed(root) {
  const place = root.dataset.address, hash = "address" in root.dataset ? location.hash.slice(1) : "";
  return new URLSearchParams(place && hash.split("&")[0] !== place ? "" : hash);
}

// What is shown at first, or what the page's address says.
function firstState(data, asked) {
  const whole = (name, limit, other = 0) => {
    const value = parseInt(asked.get(name), 10);
    return value >= 0 && value < limit ? value : other;
  };
  const strongest = data.moves.latents[0], site = data.sites.findIndex(s => s.name === asked.get("site"));
  const latent = whole("latent", data.latents.length, strongest);
  return {
    tab: ["move", "swap", "patch"].includes(asked.get("tab")) ? asked.get("tab") : "move",
    start: whole("start", data.moves.starts.length),
    latent: data.moves.latents.includes(latent) ? latent : strongest,
    stop: whole("stop", data.moves.values[0].length + 1, asked.has("latent") ? OWN : null),
    pair: whole("pair", data.pairs.length),
    swapped: whole("swapped", data.latents.length, null),
    site: site >= 0 ? site : Math.max(0, data.sites.findIndex(s => s.name === "encoder/conv2")),
    unit: whole("unit", 1e6, null),
    color: asked.get("color") === "recovery" ? "recovery" : "effect",
  };
}

// Put an explorer into an element. pages: [{title, data}], `data()` the JSON of one model.
function start(root, pages) {
  root.insertAdjacentHTML("beforeend", PARTS);
  if (!("DecompressionStream" in globalThis)) {
    root.querySelector(".about").textContent = "This browser cannot inflate the images. Any browser of 2023 or later can.";
    return;
  }
  const open = async (page, chosen = false) => {  // chosen by hand, not by the page's address
    const data = page.data(), images = reader(data.tiles, await inflate(data.tiles.pixels));
    explorer(root, page.title, data, images, firstState(data, chosen ? new URLSearchParams() : addressed(root)), chosen);
  };
  const chooser = root.querySelector(".which select");
  chooser.append(...pages.map(({title}, i) => element("option", {value: i}, title)));
  chooser.onchange = () => open(pages[chooser.value], true);
  root.querySelector(".which").hidden = pages.length < 2;
  const asked = () => {
    const found = pages.findIndex(page => page.title === addressed(root).get("model"));
    chooser.value = Math.max(0, found);
    return open(pages[chooser.value]);
  };
  // A link opened in a page that is open already.
  if ("address" in root.dataset) globalThis.addEventListener("hashchange", () => { if (addressed(root).has("tab")) asked(); });
  return asked();
}

// On a page: an explorer in every element of its class, of the scripts of JSON that stand in it. Several megabytes are
// inflated only when they come into view.
export function watch() {
  const pages = root => [...root.querySelectorAll("script")].map(
    script => ({title: script.dataset.title, data: () => JSON.parse(script.textContent)}));
  const watcher = new IntersectionObserver(entries => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      start(entry.target, pages(entry.target));
    }
  });
  for (const root of document.querySelectorAll(".explorer")) watcher.observe(root);
}

// In a notebook: of the widget's `page`.
export default {
  render({model, el}) {
    const root = element("div", {className: "explorer"});
    el.append(root);
    return start(root, [{title: "", data: () => model.get("page")}]);
  },
};
