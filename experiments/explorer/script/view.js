// --- what is seen of one model ---------------------------------------------------------------------------

// One model's part of an explorer. `root` holds its images and lists; `frame` what models side by side have in common,
// which the first of them (`leads`) fills. `share` changes the state of all of them, `remember` writes it down.
function viewOf({root, frame, leads, data, images, state, share, remember}) {
  const find = selector => root.querySelector(selector), shared = selector => frame.querySelector(selector);
  const canvases = [...root.querySelectorAll(".image canvas")];
  const view = {root, data, images, state, find, share, remember, thing: data.codes ? "code" : "latent"};
  view.term = name => element("abbr", {title: data.words?.[name] || ""}, name);
  view.ask = text => { find(".question").textContent = text; };
  view.control = (...controls) => find(".controls").replaceChildren(...controls);
  view.fill = (...parts) => find(".body").replaceChildren(...parts);
  find(".about").textContent = data.about.text || "";

  view.look = (numbers, captions, missing = false) => {
    canvases.forEach((canvas, i) => {
      if (i < 3) images.show(canvas, numbers[i]);
      const caption = i < 3 ? captions[i] : `difference ×${GAIN}`;
      canvas.nextElementSibling.textContent = caption;
      canvas.setAttribute("aria-label", caption);
    });
    images.showDifference(canvases[3], numbers[2], numbers[3]);
    find(".image.changed").classList.toggle("missing", missing);
  };

  view.say = (lines, responses, chosen, title) => {
    find(".said").replaceChildren(...lines.map(parts => element("p", {}, ...parts)));
    find(".after").replaceChildren();
    if (!responses) return;
    const largest = Math.max(1, ...responses.map(value => value || 0));
    const rows = responses.flatMap((value, i) => [
      element("span", {className: i === chosen ? "set" : ""}, data.latents[i]),
      bar(value / largest, i === chosen && "set"),
      element("em", {}, number(value)),
    ]);
    find(".after").append(element("p", {className: "muted"}, title), element("div", {className: "responses"}, ...rows));
  };

  view.pick = (title, options, chosen, choose) => {
    if (!leads) return;
    shared(".picker").setAttribute("aria-label", title);
    shared(".picker").replaceChildren(...options.map(({tiles, labels, text}, i) => {
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
  };

  // Values count from 1, "3 of 8", with the class's name where it has one; an attribute is there or is not.
  const attributes = data.pairs.some(pair => pair.observational);
  view.valueOf = ({name, size}, value) => {
    const called = data.about.classes?.[name]?.[value];
    if (called === undefined && attributes && size === 2) return value ? "yes" : "no";
    return `${value + 1} of ${size}${called === undefined ? "" : `, ${called}`}`;
  };

  view.factorsOf = values => {
    const shown = data.factors.map((f, k) => `${words(f.name)} ${view.valueOf(f, values[k])}`).slice(0, FACTORS_SHOWN);
    if (data.factors.length > FACTORS_SHOWN) shown.push(`${data.factors.length - FACTORS_SHOWN} more`);
    return shown.join(" · ");
  };

  view.draw = () => {
    TAB[state.tab](view);
    remember();
  };
  return view;
}
