// --- an explorer of one model, or of several side by side ------------------------------------------------

const TAB = {move: moveTab, swap: swapTab, patch: patchTab, circuit: circuitTab};

// shown: [{title, data, images, root}], one or several; asked: what the page's address says. Returns how to draw it.
function explorer(frame, shown, asked, chosen) {
  const find = selector => frame.querySelector(selector), tabs = [...frame.querySelectorAll("[role=tab]")];
  const panel = find("[role=tabpanel]"), id = `explorer${made += 1}`, {data} = shown[0];
  const views = shown.map(({data, images, root}, i) => viewOf({
    root, frame, leads: i === 0, data, images, state: firstState(data, asked, i), remember, share,
  }));
  const state = views[0].state;  // of which SHARED holds for all
  const thing = [...new Set(views.map(view => view.thing))].join(" or ");
  find("[data-tab=move]").textContent = `Move a ${thing}`;
  find("[data-tab=swap]").textContent = `Swap a ${thing}`;
  find(".kept").textContent = `Pictures are kept to within ${data.tiles.step / 2} of 255 levels; numbers were computed before.`
    + ("address" in frame.dataset ? " The page's address keeps what is shown: copy it to share it." : "");
  find(".glossary dl").replaceChildren(...Object.entries(data.words || {}).flatMap(
    ([name, meaning]) => [element("dt", {}, name), element("dd", {}, meaning)]));
  find(".glossary").hidden = !data.words;
  panel.setAttribute("id", `${id}-panel`);

  function share(change) {
    for (const view of views) Object.assign(view.state, change);
    draw();
  }

  function draw() {
    for (const button of tabs) {
      const chosen = button.dataset.tab === state.tab;
      button.setAttribute("aria-selected", chosen);
      button.tabIndex = chosen ? 0 : -1;
    }
    panel.setAttribute("aria-labelledby", `${id}-${state.tab}`);
    for (const view of views) view.draw();
  }

  for (const button of tabs) {
    button.setAttribute("id", `${id}-${button.dataset.tab}`);
    button.setAttribute("aria-controls", `${id}-panel`);
    button.onclick = () => share({tab: button.dataset.tab});
    button.onkeydown = event => {
      const names = Object.keys(TAB), step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
      if (!step) return;
      share({tab: names[(names.indexOf(state.tab) + step + names.length) % names.length]});
      find(`[data-tab=${state.tab}]`).focus();
    };
  }

  let untouched = true;
  function remember() {
    if (untouched || !("address" in frame.dataset)) return;
    const kept = shown.flatMap(({title, data}, i) => {
      const all = {model: shown.length > 1 ? "" : title, ...views[i].state, site: data.sites[views[i].state.site].name};
      return Object.entries(all).filter(([name, value]) => value !== null && value !== "" && !(i && SHARED.includes(name)))
        .map(([name, value]) => [called(name, i), value]);
    });
    const before = frame.dataset.address ? `${frame.dataset.address}&` : "";
    try { history.replaceState(null, "", `#${before}${new URLSearchParams(kept)}`); } catch { /* some browsers refuse for files */ }
  }
  draw();
  untouched = false;
  if (chosen) remember();
  return draw;
}

// The address's word for a part of the state of the i-th model.
const called = (name, i) => i ? `${name}.${i + 1}` : name;

// What the page's address says of this explorer: nothing where it speaks of another one, or of none.
function addressed(frame) {
  const place = frame.dataset.address, hash = "address" in frame.dataset ? location.hash.slice(1) : "";
  return new URLSearchParams(place && hash.split("&")[0] !== place ? "" : hash);
}

// What is shown at first, or what the page's address says.
function firstState(data, asked, i) {
  const get = name => asked.get(SHARED.includes(name) ? name : called(name, i));
  const whole = (name, limit, other = 0) => {
    const value = parseInt(get(name), 10);
    return value >= 0 && value < limit ? value : other;
  };
  const strongest = data.moves.latents[0], site = data.sites.findIndex(s => s.name === get("site"));
  const latent = whole("latent", data.latents.length, strongest);
  return {
    tab: get("tab") in TAB ? get("tab") : "move",
    start: whole("start", data.moves.starts.length),
    latent: data.moves.latents.includes(latent) ? latent : strongest,
    stop: whole("stop", data.moves.values[0].length + 1, get("latent") === null ? null : OWN),
    pair: whole("pair", data.pairs.length),
    swapped: whole("swapped", data.latents.length, null),
    site: site >= 0 ? site : Math.max(0, data.sites.findIndex(s => s.name === "encoder/conv2")),
    unit: whole("unit", 1e6, null),
    color: get("color") === "recovery" ? "recovery" : "effect",
    part: get("part"),
  };
}

// --- where it stands -------------------------------------------------------------------------------------

const opened = async page => {
  const data = page.data();
  return {title: page.title, data, images: reader(data.tiles, await inflate(data.tiles.pixels))};
};

// Put an explorer into an element. pages: [{title, data}], `data()` the JSON of one model; side by side where the
// element says so, else one at a time.
function start(frame, pages) {
  const beside = "beside" in frame.dataset && pages.length > 1;
  frame.insertAdjacentHTML("beforeend", beside ? SEVERAL : ONE);
  const roots = beside ? pages.map(({title}) => sectionOf(frame, title)) : [frame];
  if (!("DecompressionStream" in globalThis)) {
    frame.querySelector(".about").textContent = "This browser cannot inflate the images. Any browser of 2023 or later can.";
    return;
  }
  let draw = () => {};
  const open = async (chosenPages, asked, chosen = false) => {  // chosen by hand, not by the page's address
    const shown = await Promise.all(chosenPages.map(opened));
    draw = explorer(frame, shown.map((page, i) => ({...page, root: roots[i]})), asked, chosen);
  };
  const asked = beside ? () => open(pages, addressed(frame)) : offer(frame, pages, open);
  // A link opened in a page that is open already.
  if ("address" in frame.dataset) globalThis.addEventListener("hashchange", () => { if (addressed(frame).has("tab")) asked(); });
  follow(frame, () => draw());
  return asked();
}

// The chooser of one model of several; returns how to open the one that the page's address names.
function offer(frame, pages, open) {
  const chooser = frame.querySelector(".which select");
  chooser.append(...pages.map(({title}, i) => element("option", {value: i}, title)));
  chooser.onchange = () => open([pages[chooser.value]], new URLSearchParams(), true);
  frame.querySelector(".which").hidden = pages.length < 2;
  return () => {
    const found = pages.findIndex(page => page.title === addressed(frame).get("model"));
    chooser.value = Math.max(0, found);
    return open([pages[chooser.value]], addressed(frame));
  };
}

function sectionOf(frame, title) {
  const section = element("section", {className: "model", "aria-label": title}, element("h2", {}, title));
  section.insertAdjacentHTML("beforeend", MODEL);
  frame.querySelector(".models").append(section);
  return section;
}

// Draw anew where the element has become wider or narrower: a graph fills its width.
function follow(frame, draw) {
  if (!("ResizeObserver" in globalThis)) return;
  let width = null;
  new ResizeObserver(([{contentRect}]) => {
    if (width !== null && Math.abs(contentRect.width - width) > 1 && frame.querySelector("svg")) requestAnimationFrame(draw);
    width = contentRect.width;
  }).observe(frame);
}

// On a page: an explorer in every element of its class, of the scripts of JSON that stand in it. Several megabytes are
// inflated only when they come into view.
export function watch() {
  const pages = frame => [...frame.querySelectorAll("script")].map(
    script => ({title: script.dataset.title, data: () => JSON.parse(script.textContent)}));
  const watcher = new IntersectionObserver(entries => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      start(entry.target, pages(entry.target));
    }
  });
  for (const frame of document.querySelectorAll(".explorer")) watcher.observe(frame);
}

// In a notebook: of the widget's `page`, or of several `pages`, [title, page] each.
export default {
  render({model, el}) {
    const several = model.get("pages"), pages = several?.length ? several : [["", model.get("page")]];
    const frame = element("div", {className: "explorer"});
    if (pages.length > 1) frame.dataset.beside = "";
    el.append(frame);
    return start(frame, pages.map(([title, page]) => ({title, data: () => page})));
  },
};
