// The explorer of trained models: an ES module, for a page (`watch`) and for a notebook (anywidget calls `render` of the
// default export). It is the files of page.py's SCRIPTS one behind the other. What it shows is the JSON of packing.py.

const GAIN = 4;  // of the difference image
const CHANNELS_IN_A_ROW = 16, FACTORS_SHOWN = 12;
const OWN = "own";  // state.stop where a latent has the image's own value; null where nobody has moved it yet
const SHARED = ["tab", "start", "pair"];  // of the state: what models side by side have in common
let made = 0;  // explorers on this page

const SEEN = `
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
  </div>`;
const TABS = `
  <div class="tabs" role="tablist">
    <button role="tab" data-tab="move">Move a latent</button>
    <button role="tab" data-tab="swap">Swap a latent</button>
    <button role="tab" data-tab="patch">Patch a channel</button>
    <button role="tab" data-tab="circuit">Follow the circuit</button>
  </div>`;
const PICKER = `<div class="picker" role="group"></div>`;
const ASKED = `<div class="controls"></div><div class="body"></div>`;
const QUESTION = `<p class="muted question"></p>`;
const END = `
  <details class="glossary"><summary>What the words mean</summary><dl></dl></details>
  <p class="muted kept"></p>`;
const ONE = `
  <p class="which" hidden><label>Data set <select></select></label></p>
  <p class="muted about"></p>
  ${TABS}
  <div class="columns" role="tabpanel">${SEEN}<div class="asked">${QUESTION}${PICKER}${ASKED}</div></div>
  ${END}`;
const SEVERAL = `${TABS}<div role="tabpanel">${PICKER}<div class="models"></div></div>${END}`;
const MODEL = `<p class="muted about"></p>${QUESTION}${SEEN}<div class="asked">${ASKED}</div>`;

// --- images -----------------------------------------------------------------------------------------

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Int8Array(await new Response(stream).arrayBuffer());
}

// Each image is an earlier one plus steps of so many levels: see tiles.py.
function reader(packed, stored) {
  const [height, width, channels] = packed.shape, size = height * width * channels, known = new Map();
  const fine = new Set(packed.fine);
  const stepOf = (number, reference) =>
    reference < 0 ? packed.first_step : fine.has(number) ? packed.fine_step : packed.step;
  function levels(number) {
    if (!known.has(number)) {
      const reference = packed.references[number], image = new Int16Array(size);
      const before = reference < 0 ? null : levels(reference), step = stepOf(number, reference);
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

function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function bar(share, kind = "") {
  const inner = element("i", {className: kind || ""});
  inner.style.width = `${100 * Math.max(0, Math.min(1, share || 0))}%`;
  return element("span", {className: "bar"}, inner);
}
