// What moves an explorer on a page without a kernel. `_script` in explore.py wraps it into a function of its own.
const unpack = async (text) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};
// All curves of a type: (number of the curve) => list of [x, y] along the axes
const readCurves = (type, bytes) => {
  const half = bytes.length / 2, word = (i) => bytes[i] * 256 + bytes[half + i];
  const starts = [0];
  for (let i = 0; i < type.count; i++) starts.push(starts[i] + word(i));
  const total = starts[type.count];
  return (number) => {
    const points = [];
    for (let i = starts[number], x = 0, y = 0; i < starts[number + 1]; i++) {
      x = (x + word(type.count + i)) & 65535;
      y = (y + word(type.count + total + i)) & 65535;
      points.push([type.grid[0][0] + x * type.grid[0][1], type.grid[1][0] + y * type.grid[1][1]]);
    }
    return points;
  };
};

const safe = (text) => text.replace(/[&<>"]/g, (c) => "&#" + c.charCodeAt(0) + ";");
const longest = (axis) => Math.max(...axis.ticks.map((t) => t[1].length));
const share = (axis, value) => (value - axis.low) / (axis.high - axis.low);
const layout = (type, width) => {
  const left = 18 + 7 * longest(type.y), keys = [];
  let x = width, row = -1;
  type.curves.forEach(([name, style], n) => {
    if (type.curves.length < 2) return;
    const wide = 44 + 7 * [...name].length;
    if (row < 0 || x + wide > width) { x = left; row++; }
    const y = 38 + 21 * row, key = {points: 0, bars: 14}[style] ?? 24;
    keys.push(`<path class="nn-curve nn-c${n} nn-${style}" d="M${x + (24 - key) / 2} ${y - 4}h${key}"/>`,
      `<text x="${x + 31}" y="${y}">${safe(name)}</text>`);
    x += wide;
  });
  const high = Math.round(Math.min(300, Math.max(200, 0.44 * width)));
  return {left, top: 30 + 21 * (row + 1), wide: width - left - 18, high, keys: keys.join(""), width};
};
const tick = (side, value, path, place, text) => `<g class="nn-${side}" data-value="${value}">
  <path class="nn-${side == "x" ? "axis" : "grid"}" d="${path}"/><text class="nn-tick" ${place}>${text}</text></g>`;
const axes = (type, at) => {
  const {left, top, wide, high} = at, bottom = top + high, parts = [];
  for (const [value, text] of type.y.ticks) {
    const y = (top + (1 - share(type.y, value)) * high).toFixed(2);
    parts.push(tick("y", value, `M${left} ${y}h${wide}`, `text-anchor="end" x="${left - 8}" y="${+y + 4}"`, text));
  }
  const stride = Math.ceil(type.x.ticks.length * (14 + 7 * longest(type.x)) / (wide + 1));
  type.x.ticks.forEach(([value, text], i) => {
    const x = (left + share(type.x, value) * wide).toFixed(2);
    const place = `text-anchor="middle" x="${x}" y="${bottom + 20}"`;
    if (i % stride == 0) parts.push(tick("x", value, `M${x} ${bottom}v5`, place, text));
  });
  const middle = `text-anchor="middle" x="${left + wide / 2}" y="${bottom + 41}"`;
  parts.push(`<path class="nn-axis" d="M${left} ${bottom}h${wide}"/>`,
    `<text class="nn-label" ${middle}>${safe(type.x.label)}</text>`);
  return parts.join("");
};

const box = (x, y, width, height) => `x="${x}" y="${y}" width="${width}" height="${height}"`;
const picture = (type, at, alt) => {
  const {left, top, wide, high, width} = at, total = top + high + 48;
  const paths = type.curves.map(([, style], n) => `<path class="nn-curve nn-c${n} nn-${style}" data-curve="${n}"/>`);
  const halos = type.curves.map(([, style], n) => `<path class="nn-halo nn-halo-${style}" data-curve="${n}"/>`);
  const frame = box(left, top, wide, high), plot = [wide + 8, high + 8];
  const image = `<image ${frame} preserveAspectRatio="none" href="${type.background}"/>`;
  return [`<svg class="nn-picture" viewBox="0 0 ${width} ${total}" width="${width}" height="${total}" role="img"`,
    ` aria-label="${safe(alt)}"><text class="nn-label" x="4" y="15">${safe(type.y.label)}</text>`,
    at.keys, axes(type, at), type.background ? image : "",
    `<svg class="nn-plot${type.background ? " nn-on-image" : ""}" ${box(left - 4, top - 4, ...plot)}`,
    ` viewBox="-4 -4 ${plot.join(" ")}">`, ...(type.background ? halos : []), ...paths, "</svg></svg>"].join("");
};
// The d attribute of a path
const outline = (type, style, points, at) => {
  const height = (y) => ((1 - share(type.y, y)) * at.high).toFixed(2);
  const places = points.map(([x, y]) => [(share(type.x, x) * at.wide).toFixed(2), height(y)]);
  const zero = type.y.log ? at.high : Math.min(at.high, Math.max(0, height(0)));
  if (style == "points") return places.map(([x, y]) => `M${x} ${y}h0`).join("");
  if (style == "bars") return places.map(([x, y]) => `M${x} ${zero}V${y}`).join("");
  return "M" + places.map((place) => place.join(" ")).join("L");
};

const element = (tag, properties, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};
const keep = (event) => event.stopPropagation();
const sliderRow = (slider, id, position, moved) => {
  const shown = (i) => slider.texts[i] + (slider.unit ? " " + slider.unit : "");
  const input = element("input", {type: "range", id, min: 0, max: slider.texts.length - 1, step: 1, value: position});
  const output = element("output", {htmlFor: id});
  const say = () => {
    output.textContent = shown(+input.value);
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.dataset.name = slider.name;
  input.addEventListener("keydown", keep);
  input.addEventListener("input", () => { say(); moved(+input.value); });
  say();
  const label = element("label", {htmlFor: id, textContent: slider.label});
  return element("div", {className: "nn-slider"}, label, output, input);
};
const header = (spec, id, chosen, reset) => {
  const head = element("div", {className: "nn-head"}, element("strong", {textContent: spec.title}));
  if (spec.types.length > 1) {
    const options = spec.types.map((type, i) => element("option", {value: i, textContent: type.name}));
    const select = element("select", {id: id + "-type"}, ...options);
    select.addEventListener("keydown", keep);
    select.addEventListener("change", () => chosen(+select.value));
    const label = element("label", {htmlFor: select.id, textContent: spec.choose + " "});
    head.append(element("span", {}, label, select));
  }
  const button = element("button", {type: "button", textContent: "Reset"});
  button.addEventListener("click", reset);
  head.append(button);
  return head;
};

const start = async (root, number) => {
  const spec = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  const id = root.id + "-" + number, sliders = element("div", {className: "nn-sliders"});
  const fixed = element("p", {className: "nn-fixed"}), plot = element("div", {className: "nn-plot-area"});
  let type, read, positions, at, wanted;
  const show = () => {
    const place = type.sliders.reduce((index, slider, i) => index * slider.texts.length + positions[i], 0);
    root.dataset.place = place;
    if (!type.curves) { plot.firstChild.src = read(place); return; }
    type.curves.forEach(([, style], n) => {
      const points = read(place * type.curves.length + n), outlined = outline(type, style, points, at);
      for (const path of plot.querySelectorAll(`[data-curve="${n}"]`)) {
        path.setAttribute("d", outlined);
        if (style == "bars") path.style.strokeWidth = (0.7 * at.wide / (points.length + 0.4)).toFixed(1);
      }
    });
  };
  const frame = () => {
    at = type.curves ? layout(type, Math.max(280, Math.min(720, plot.clientWidth || 720))) : {};
    if (type.curves) plot.innerHTML = picture(type, at, spec.alt);
    else plot.replaceChildren(element("img", {alt: spec.alt, width: 720}));
    show();
  };
  const moved = (i) => (position) => { positions[i] = position; show(); };
  const rows = () => {
    positions = type.sliders.map((slider) => slider.start);
    sliders.replaceChildren(...type.sliders.map((s, i) => sliderRow(s, `${id}-${i}`, s.start, moved(i))));
    fixed.textContent = type.fixed.join(" · ");
    fixed.hidden = !type.fixed.length;
  };
  const choose = async (index) => {
    const chosen = wanted = spec.types[index], bytes = await unpack(chosen.data);
    if (chosen != wanted) return;
    [type, read] = [chosen, chosen.curves ? readCurves(chosen, bytes) : readFrames(chosen, bytes)];
    rows();
    frame();
  };
  const head = header(spec, id, choose, () => { rows(); show(); });
  await choose(0);
  root.querySelectorAll(":scope > :not(style):not(script)").forEach((still) => still.remove());
  root.append(head, sliders, fixed, plot);
  const fit = () => { if (type.curves && plot.clientWidth && layoutWidth() != at.width) frame(); };
  const layoutWidth = () => Math.max(280, Math.min(720, plot.clientWidth));
  new ResizeObserver(fit).observe(plot);
  fit();
  root.dataset.ready = "yes";
};

const readFrames = (type, bytes) => {
  let at = 0;
  const parts = type.lengths.map((length) => bytes.slice(at, at += length));
  const addresses = parts.map((part) => URL.createObjectURL(new Blob([part], {type: type.mime})));
  return (place) => addresses[place];
};
const asleep = document.querySelectorAll(".nn-explore[data-explorer]:not([data-awake])");
asleep.forEach((root) => {
  root.dataset.awake = window.nnExplorers = (window.nnExplorers || 0) + 1;
  start(root, window.nnExplorers).catch((error) => console.error("explorer " + root.id, error));
});
