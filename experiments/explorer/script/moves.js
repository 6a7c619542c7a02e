// --- a latent is moved -----------------------------------------------------------------------------------

function stopsOf({data}, start, m) {
  const own = {value: start.own[m], own: true, effect: 0, picture: start.decoded, response: data.latents.map(() => 0)};
  const others = data.moves.values[m].map((value, v) => ({
    value, effect: start.effect[m][v], picture: start.pictures[m][v], response: start.response[m][v],
  }));
  return data.codes ? [own, ...others] : [...others, own].sort((a, b) => a.value - b.value);
}

function farthest(view, start) {
  const m = Math.max(0, view.data.moves.latents.indexOf(view.state.latent));
  const effects = stopsOf(view, start, m).map(stop => stop.effect || 0);
  return effects.indexOf(Math.max(...effects));
}

function moveTab(view) {
  const {data, state} = view, start = data.moves.starts[state.start];
  if (state.stop === null) state.stop = farthest(view, start);
  view.ask(data.codes
    ? "One code of an image's map is replaced by another one in use: first its own, then the most used ones."
    : "do(z := value): one latent is set, all others stay. Strongest first; sliders start at the image's own value.");
  const offered = data.moves.starts.map((s, i) => (
    {tiles: [s.image], labels: [view.factorsOf(s.factors)], text: `image ${i + 1}`}));
  view.pick("Image to start from", offered, state.start, i => view.share({start: i, stop: null}));
  const reset = element("button", {type: "button", onclick: () => { state.stop = OWN; view.draw(); }}, "Back to its own");
  view.control(reset, element("span", {className: "muted"}, view.factorsOf(start.factors)));
  const strongest = Math.max(...data.strengths.ces.map(value => value || 0));
  const head = element("div", {className: "row head"}, element("span", {}, view.thing), element("span", {}),
    element("span", {}, "value"), element("span", {}, view.term("CES")));
  const rows = data.moves.latents.map((latent, m) => slider(view, start, latent, m, strongest));
  view.fill(element("div", {className: "rows"}, head, ...rows));
  seeMove(view, start);
}

function slider(view, start, latent, m, strongest) {
  const {root, data, state} = view;
  const offered = stopsOf(view, start, m), home = offered.findIndex(stop => stop.own);
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
    seeMove(view, start);
    view.remember();
  });
  row.rest = () => { input.value = home; value.textContent = text(offered[home]); };
  return row;
}

function seeMove(view, start) {
  const {data, state, term} = view;
  const m = Math.max(0, data.moves.latents.indexOf(state.latent)), latent = data.moves.latents[m];
  const offered = stopsOf(view, start, m), own = offered.find(stop => stop.own);
  const stop = state.stop === OWN ? own : offered[state.stop], s = data.strengths, name = data.latents[latent];
  view.look([start.image, start.decoded, stop.picture, start.decoded], ["input", "decoded", `${name} moved`]);
  const value = data.codes ? stop.value : signed(stop.value), before = data.codes ? own.value : signed(own.value);
  const share = s.ces[latent] > 0 && !stop.own ? `, ${percent(stop.effect / s.ces[latent])} of its CES` : "";
  view.say([
    stop.own ? [bold(name), ` has its own value, ${before}`] : [bold(`do(${name} := ${value})`), `, from ${before}`],
    ["this move changes the image by ", bold(number(stop.effect)), ` (l2)${share}`],
    [`${name}: `, term("CES"), ` ${number(s.ces[latent])} ± ${number(s.ces_error[latent])}, `, term("specificity"),
      ` ${number(s.specificity[latent])}`, ...(data.codes ? [] : [", ", term("KL"), ` ${number(s.activity[latent])} nats`])],
  ], stop.response, latent, data.codes
    ? "Codes that are another after decoding and encoding again (1: changed)"
    : "How far each latent moved after decoding and encoding again, in its standard deviations");
}
