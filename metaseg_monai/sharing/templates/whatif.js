"use strict";
const $ = (id) => document.getElementById(id);
const model = JSON.parse($("model").textContent);
const foreground = model.classes.slice(1);
// Okabe and Ito's colours, which colour-blind eyes tell apart
const CLASSES = [[0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [160, 160, 160]];
const ADDED = [86, 180, 233], REMOVED = [230, 159, 0], CHANGED = [204, 121, 167];
const ALPHA = 0.45, STRONG = 0.85;
const css = (rgb) => `rgb(${rgb.join(",")})`;
const dark = (rgb) => css(rgb.map((one) => Math.round(one * 0.55)));  // of lines on white
const classColour = (number) => CLASSES[(number - 1) % CLASSES.length];
const pixel = (rgb, alpha) => ((Math.round(alpha * 255) << 24) | (rgb[2] << 16) | (rgb[1] << 8) | rgb[0]) >>> 0;

let shown = null;      // the case on the page
let controls = [];     // its fields, and guidance
let current = null;    // the control that is moved away from the given value, and its entry
let active = null;     // the control whose curve is drawn
let drawn = null;      // the place of the class whose curve is drawn
let opening = 0;
let complete = () => true;  // whether what is to be seen is there; on the live page it may have to be asked for

// ---- reading: run lengths, pictures

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function picture(address) {
  return new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = () => failed(new Error("a picture of this page is damaged"));
    image.src = address;
  });
}

const base = 1 << (32 - Math.clz32(model.classes.length - 1));  // the power of two that holds the classes

/** Go through the runs of a mask, from behind its first byte; return where it ends. */
function runsOf(runs, at, pixels, each) {
  for (let seen = 0; seen < pixels;) {
    let number = 0, factor = 1, byte;
    do { byte = runs[at++]; number += (byte & 127) * factor; factor *= 128; } while (byte & 128);
    const length = Math.floor(number / base);
    each(number % base, seen, seen + length);
    seen += length;
  }
  return at;
}

/** Where each mask begins in the stream. */
function beginnings(runs, pixels) {
  const found = [];
  for (let at = 0; at < runs.length;) {
    found.push(at);
    at = runsOf(runs, at + 1, pixels, () => {});
  }
  return found;
}

/** The classes of a mask's pixels, whose runs begin there; `before` is that of the state before. */
function decoded(runs, at, pixels, before) {
  const change = runs[at] === 1, mask = change ? before.slice() : new Uint8Array(pixels);
  runsOf(runs, at + 1, pixels, (number, from, to) => {
    if (!number) return;
    if (change) for (let one = from; one < to; one++) mask[one] ^= number;
    else mask.fill(number, from, to);
  });
  return mask;
}

/** The masks of all states in a plane, as far as they are there; those of the last plane are kept. */
function masksOf(plane) {
  if (shown.runs && shown.kept !== plane) {
    shown.masks = [];
    for (let state = 0; state < shown.told.areas.length; state++) {
      const at = shown.starts[state * shown.told.planes.length + plane];
      shown.masks.push(decoded(shown.runs, at, shown.pixels, shown.masks[state - 1]));
    }
    shown.kept = plane;
  }
  return shown.runs ? shown.masks : (shown.masks[plane] ??= []);
}

/** The edges between different classes, as a path in pixels. */
function outline(mask, high, wide) {
  const path = new Path2D();
  for (let y = 0; y < high; y++) {
    for (let x = 0; x < wide; x++) {
      const own = mask[y * wide + x];
      if (x + 1 < wide && mask[y * wide + x + 1] !== own) { path.moveTo(x + 1, y); path.lineTo(x + 1, y + 1); }
      if (y + 1 < high && mask[(y + 1) * wide + x] !== own) { path.moveTo(x, y + 1); path.lineTo(x + 1, y + 1); }
    }
  }
  return path;
}

// ---- a case

async function open(number) {
  const token = ++opening;
  const told = JSON.parse($(`case-${number}`).textContent);
  const [runs, gates, ...pictures] = await Promise.all(
    [inflate(told.masks), told.gates ? inflate(told.gates) : null, ...told.pictures.map(picture)]);
  if (token !== opening) return;
  present({ number, told, name: model.cases[number].name, runs, gates, pictures });
  $("case").value = String(number);
  $("previous").disabled = number === 0;
  $("next").disabled = number === model.cases.length - 1;
  const split = model.cases[number].trained;
  $("trained").hidden = !split;
  $("trained").textContent = split === "train" ? "The network was trained on this case or its group: its masks are no test."
    : split ? "The weights were chosen by this case or its group: its masks are no test." : "";
}

/** Put a case on the page. */
function present(found) {
  const { told, runs } = found, [high, wide] = told.size, layer = new OffscreenCanvas(wide, high);
  shown = { ...found, high, wide, pixels: high * wide, layer, paint: layer.getContext("2d"),
            starts: runs ? beginnings(runs, high * wide) : [], plane: 0, kept: null, masks: [] };
  shown.data = shown.paint.createImageData(wide, high);
  const states = told.areas.length * told.planes.length;
  shown.truth = shown.starts.length > states ? states : null;
  const sizes = told.planes.map((_, plane) => sum((told.true_areas || told.areas[0])[plane] || [0]));
  shown.plane = runs ? sizes.indexOf(Math.max(...sizes)) : Math.floor(told.planes.length / 2);
  current = null;
  $("notes").replaceChildren(...told.notes.map((text) => make("li", text)));
  $("of-truth").hidden = shown.truth === null;
  $("slices").hidden = told.planes.length < 2;
  $("slice").max = String(told.planes.length - 1);
  build();
  show();
}

const sum = (numbers) => numbers.reduce((total, one) => total + one, 0);

function make(tag, text, of = {}) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  for (const [name, value] of Object.entries(of)) element.setAttribute(name, value);
  return element;
}

// ---- controls

/** What a control can be set to: stops of its slider, and choices. */
function entries(name, options, given) {
  const places = shown.told.states[name];
  const all = options.map((one, at) => ({ ...one, state: places[at], given: places[at] === 0 }));
  const stops = all.filter((one) => one.at !== null), choices = all.filter((one) => one.at === null);
  if (!all.some((one) => one.given)) {
    const own = { text: given.text, at: given.at, beyond: given.beyond, state: 0, given: true };
    (own.at === null ? choices : stops).push(own);
    stops.sort((one, other) => one.at - other.at);
  }
  return { stops, choices };
}

function build() {
  controls = [];
  const told = shown.told;
  for (const field of model.fields) {
    const given = told.given[field.name];
    if (field.options.length === 0) {
      const box = make("fieldset");
      box.append(make("legend", field.name), make("p", `${given.text} (as given)`, { class: "soft" }));
      controls.push({ name: field.name, box });
      continue;
    }
    const unit = field.unit ? ` ${field.unit}` : "";
    controls.push({ name: field.name, id: field.id, title: field.name, unit, field, value: given,
                    ...entries(field.name, field.options, given) });
  }
  if (model.guidance.length) {
    const value = { text: String(model.guided), at: model.guided, beyond: "" };
    const found = entries("guidance", model.guidance.map((one) => ({ ...one, beyond: one.at > 1
      ? "Guidance above 1 exaggerates what the metadata do; no training saw it." : "" })), value);
    controls.push({ name: "guidance", id: "guidance", title: "Guidance: how far the mask follows the metadata",
                    unit: "", value, guidance: true, ...found });
  }
  const moved = controls.filter((one) => one.id);
  active = moved.find((one) => active && one.id === active.id) || moved[0];
  $("fields").replaceChildren(...controls.map((one) => one.box || box(one)));
}

const said = (control, entry) => {
  if (!control.guidance) return entry.text + (entry.at === null ? "" : control.unit);
  const meaning = { 0: " (as if unknown)", 1: " (plain)", 2: " (exaggerated)" }[entry.at] || "";
  return entry.text + meaning;
};

function box(control) {
  const own = make("fieldset");
  control.element = own;
  own.append(make("legend", control.title));
  if (control.field && control.field.description) own.append(make("p", control.field.description, { class: "soft" }));
  if (control.stops.length) slider(control, own);
  if (control.choices.length) choices(control, own);
  return own;
}

/** The values of a quantity that were trained; without knowledge of a training, those of the schema. */
const trainedWords = (field) => `${field.cases ? "trained" : "schema"}: ${format(field.trained[0])} to ${format(field.trained[1])}${field.unit ? ` ${field.unit}` : ""}`;

function slider(control, own) {
  const stops = control.stops, last = stops.length - 1, value = make("div", null, { class: "value" });
  control.output = make("output", "", { for: control.id });
  control.beside = make("span", "", { class: "soft" });
  value.append(control.output, control.beside);
  const range = make("input", null, { type: "range", id: control.id, min: 0, max: last, step: 1, "aria-label": control.title });
  range.addEventListener("input", () => set(control, stops[Number(range.value)]));
  control.range = range;
  const marks = make("div", null, { class: "marks", "aria-hidden": "true" });
  const at = stops.findIndex((one) => one.given);
  if (at >= 0) {
    const late = at > last * 0.8, mark = make("span", late ? "given ▲" : "▲ given");
    mark.className = late ? "late" : "";
    mark.style.left = `${(100 * at) / last}%`;
    marks.append(mark);
  }
  const ends = make("div", null, { class: "ends" });
  const middle = control.field ? trainedWords(control.field) : "";
  ends.append(make("span", stops[0].text), make("span", middle), make("span", stops[last].text));
  own.append(value, range, marks, ends);
}

function choices(control, own) {
  const group = make("div", null, { class: "choices" });
  if (!control.stops.length) {
    group.id = control.id;
    group.setAttribute("role", "radiogroup");
    group.setAttribute("aria-label", control.title);
  }
  control.choices.forEach((entry, at) => {
    const text = entry.text + (entry.given ? " (given)" : "") + (entry.beyond ? " (not trained)" : "");
    if (control.stops.length) {  // beside a slider: unknown, or what was given
      const button = make("button", text, { type: "button", id: `${control.id}-${at}`, "aria-pressed": "false" });
      button.addEventListener("click", () => set(control, entry));
      entry.button = button;
      group.append(button);
      return;
    }
    const label = make("label", null, { class: entry.given ? "choice given" : "choice" });
    const radio = make("input", null, { type: "radio", name: control.id, value: entry.text });
    radio.addEventListener("change", () => set(control, entry));
    entry.radio = radio;
    label.append(radio, make("span", text));
    group.append(label);
  });
  own.append(group);
}

function set(control, entry) {
  active = control;
  current = entry.given ? null : { control, entry };
  show();
}

// ---- showing

const state = () => (current ? current.entry.state : 0);
const numbers = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
const format = (number) => numbers.format(number);
const rough = (number) => new Intl.NumberFormat("en", { maximumSignificantDigits: 2 }).format(number);

function measure() {
  const mm2 = shown.told.pixel_mm2;
  if (mm2 === null) return [1, "pixels"];
  return mm2 < 1e-4 ? [mm2 * 1e6, "µm²"] : [mm2, "mm²"];
}

function show() {
  const told = shown.told;
  for (const control of controls) sync(control);
  const words = (one) => `${one.guidance ? "guidance" : one.name} ${one.value ? said(one, one.value) : told.given[one.name].text}`;
  const others = controls.filter((one) => !one.guidance && !(current && one === current.control)).map(words);
  const moved = current && `${current.control.guidance ? "guidance" : current.control.name} ${said(current.control, current.entry)} instead of ${said(current.control, current.control.value)}`;
  $("now").textContent = `The network is told: ${[...(moved ? [moved] : []), ...others].join("; ")}${moved ? "" : " (as given)"}`;
  $("as-given").disabled = current === null;
  warn();
  if (told.planes.length > 1) {
    $("slice").value = String(shown.plane);
    $("slice-now").textContent = `${told.planes[shown.plane] + 1} of ${told.of}`;
    $("slice").setAttribute("aria-valuetext", $("slice-now").textContent);
  }
  if (!complete()) return;
  draw();
  tellArea();
  curve();
  showGates();
}

function sync(control) {
  if (!control.id) return;
  const moved = current && current.control === control;
  control.element.classList.toggle("touched", Boolean(moved));
  const own = moved ? current.entry : [...control.stops, ...control.choices].find((one) => one.given);
  for (const entry of control.choices) {
    if (entry.radio) entry.radio.checked = entry === own;
    if (entry.button) entry.button.setAttribute("aria-pressed", String(entry === own));
  }
  if (!control.range) return;
  const at = control.stops.indexOf(own);
  control.range.value = String(at >= 0 ? at : Math.floor(control.stops.length / 2));
  control.range.classList.toggle("aside", at < 0);
  const text = own ? said(control, own) : "";
  control.output.textContent = text;
  control.beside.textContent = own && own.given ? "as given" : `given: ${said(control, control.value)}`;
  control.range.setAttribute("aria-valuetext", own && own.given ? `${text}, as given` : text);
}

function warn() {
  const told = Object.entries(shown.told.given)
    .filter(([name, one]) => one.beyond && !(current && current.control.name === name))
    .map(([, one]) => one.beyond);
  if (current && current.entry.beyond) told.unshift(current.entry.beyond);
  $("warning").hidden = told.length === 0;
  const doubt = told.some((text) => !text.startsWith("Guidance")) ? " Do not rely on this mask." : "";
  $("warning").textContent = told.length ? `⚠ ${told.map((text) => text.replace(/\.$/, "")).join(". ")}.${doubt}` : "";
}

function draw() {
  const canvas = $("image"), { high, wide, plane } = shown, box = canvas.getBoundingClientRect();
  const most = Math.max(box.width * (window.devicePixelRatio || 1), wide);
  const scale = most / wide;
  if (canvas.width !== Math.round(wide * scale) || canvas.height !== Math.round(high * scale)) {
    canvas.width = Math.round(wide * scale);
    canvas.height = Math.round(high * scale);
  }
  canvas.style.aspectRatio = `${wide} / ${high}`;
  canvas.style.objectFit = "contain";
  const context = canvas.getContext("2d");
  const truth = shown.truth !== null && $("show-truth").checked;
  const key = [plane, canvas.width, truth].join();
  if (shown.still !== key) still(canvas.width, canvas.height, scale, truth);
  shown.still = key;
  context.drawImage(shown.under, 0, 0);
  if ($("show-mask").checked || $("show-difference").checked) {
    const masks = masksOf(plane);
    paint(masks[state()], $("show-difference").checked ? masks[0] : null, $("show-mask").checked);
    shown.paint.putImageData(shown.data, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(shown.layer, 0, 0, canvas.width, canvas.height);
  }
  if (truth) context.drawImage(shown.over, 0, 0);
  canvas.dataset.state = String(state());
  canvas.dataset.plane = String(plane);
  legend(truth);
}

/** Draw what stays while values change: the picture below the mask, the true outline above it. */
function still(width, height, scale, truth) {
  shown.under = new OffscreenCanvas(width, height);
  const under = shown.under.getContext("2d");
  under.imageSmoothingEnabled = scale < 3;
  under.drawImage(shown.pictures[shown.plane], 0, 0, width, height);
  if (!truth) return;
  shown.over = new OffscreenCanvas(width, height);
  const over = shown.over.getContext("2d"), path = outline(decoded(shown.runs, shown.starts[shown.truth + shown.plane], shown.pixels), shown.high, shown.wide);
  over.setTransform(width / shown.wide, 0, 0, height / shown.high, 0, 0);
  over.lineCap = "square";
  const line = width / shown.wide / Math.max(1, width / 600);
  for (const [colour, thick] of [["#000", 3.6], ["#fff", 1.7]]) {
    over.strokeStyle = colour;
    over.lineWidth = thick / line;
    over.stroke(path);
  }
}

/** Colour the layer: the mask by class, or where it differs from the one for the given value. */
function paint(now, given, whole) {
  const to = new Uint32Array(shown.data.data.buffer), wide = shown.wide;
  const ofClass = model.classes.map((_, number) => (number ? pixel(classColour(number), ALPHA) : 0));
  const added = pixel(ADDED, STRONG), changed = pixel(CHANGED, STRONG);
  const removed = [pixel(REMOVED, STRONG), pixel(REMOVED, 0.3)], period = Math.max(1, Math.round(wide / 130));
  for (let at = 0; at < now.length; at++) {
    const own = now[at];
    if (!given) { to[at] = ofClass[own]; continue; }
    const was = given[at];
    if (own === was) to[at] = whole ? ofClass[own] : 0;
    else if (!was) to[at] = added;
    else if (own) to[at] = changed;
    else {
      const x = at % wide, y = (at - x) / wide;
      to[at] = removed[Math.floor((x + y) / period) % 2];
    }
  }
}

let legendOf = "";
function legend(truth) {
  const whole = $("show-mask").checked, difference = $("show-difference").checked, several = foreground.length > 1;
  const parts = [];
  const mask = difference ? "mask, with both values" : "mask";
  if (whole) foreground.forEach((name, at) => parts.push([several ? name : mask, classColour(at + 1), ALPHA]));
  if (difference) parts.push(["only with the chosen value", ADDED, STRONG], ["only with the given value", REMOVED, "striped"]);
  if (difference && several) parts.push(["another class with the chosen value", CHANGED, STRONG]);
  if (truth) parts.push([givenWords(), null, "line"]);
  const key = JSON.stringify(parts);
  if (key === legendOf) return;
  legendOf = key;
  $("legend").replaceChildren(...parts.map(([text, colour, how]) => {
    const part = make("span"), swatch = make("canvas", null, { width: 48, height: 32, "aria-hidden": "true" });
    const context = swatch.getContext("2d");
    context.fillStyle = "#4a4a4a";
    context.fillRect(0, 0, 48, 32);
    if (how === "line") {
      for (const [stroke, width] of [["#000", 12], ["#fff", 6]]) {
        context.strokeStyle = stroke; context.lineWidth = width;
        context.beginPath(); context.moveTo(0, 16); context.lineTo(48, 16); context.stroke();
      }
    } else {
      context.fillStyle = css(colour);
      context.globalAlpha = how === "striped" ? 0.3 : how;
      context.fillRect(0, 0, 48, 32);
      if (how === "striped") {
        context.globalAlpha = STRONG;
        for (let at = -32; at < 48; at += 16) {
          context.beginPath(); context.moveTo(at, 32); context.lineTo(at + 32, 0); context.lineTo(at + 40, 0);
          context.lineTo(at + 8, 32); context.fill();
        }
      }
    }
    part.append(swatch, make("span", text));
    return part;
  }));
}

const givenWords = () => "true outline, for the given value";

function tellArea() {
  const [factor, unit] = measure(), told = shown.told, lines = [];
  const line = (name, now, given, truth, how, what) => {
    const change = now - given, share = given ? ` (${change > 0 ? "+" : ""}${rough((100 * change) / given)} %)` : "";
    const row = make("span");
    row.append(`${name}: `, make("b", `${format(now * how)} ${what}`));
    row.append(current ? `; as given ${format(given * how)} ${what}${share}` : "");
    if (truth !== null) row.append(`; true${current ? " for the given value" : ""} ${format(truth * how)} ${what}`);
    lines.push(row);
  };
  foreground.forEach((name, at) => {
    const truth = told.true_areas ? told.true_areas[shown.plane][at] : null;
    line(foreground.length > 1 ? name : "Area of the mask", told.areas[state()][shown.plane][at], told.areas[0][shown.plane][at], truth, factor, unit);
    const ends = intervalOf(state(), at);
    if (ends) lines[lines.length - 1].append(`; ${intervalWords(ends, unit)}`);
  });
  const every = (at) => told.areas[at].every((one) => one !== null);
  const whole = told.volumes || (told.planes.length > 1 && told.planes.length === told.of && every(0) && every(state())
    ? told.areas.map((planes) => foreground.map((_, at) => sum(planes.map((one) => (one ? one[at] : 0))))) : null);
  if (whole) {
    const [how, what] = told.voxel_ml === null ? [1, "voxels"] : [told.voxel_ml, "ml"];
    foreground.forEach((name, at) => line(`${foreground.length > 1 ? name : "Mask"}, whole volume`, whole[state()][at], whole[0][at], null, how, what));
  }
  $("area").replaceChildren(...lines);
  const text = lines.map((one) => one.textContent).join(". ");
  $("image").setAttribute("aria-label", `Case ${shown.name}, ${$("now").textContent}. ${text}`);
}

// ---- the curve of areas

const HALO = { stroke: "#fff", "stroke-width": 4, "paint-order": "stroke" };
const SVG = "http://www.w3.org/2000/svg";
function svg(tag, of, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(of)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** The area for an entry; null where it was not asked for yet. */
function areaOf(entry, at) {
  const areas = shown.told.areas[entry.state][shown.plane];
  return areas === null ? null : areas[at] * measure()[0];
}
const isThere = (area) => area !== null;
/** The interval of a state's area in this slice, as [low, high] in the unit; null where none is known. */
function intervalOf(place, at) {
  const of = shown.told.intervals && shown.told.intervals[place] && shown.told.intervals[place][shown.plane];
  return of && of[at] ? of[at].map((end) => end * measure()[0]) : null;
}
const intervalWords = (ends, unit) => `${format(100 * model.coverage)} % interval ${format(ends[0])} to ${format(ends[1])} ${unit}, if these metadata are true`;

/** The class that the curve is of: the one chosen, at first the one that changes most. */
function chosenClass() {
  if (drawn === null && active) {
    const changes = foreground.map((_, at) => {
      const areas = [...active.stops, ...active.choices].map((one) => areaOf(one, at)).filter(isThere), most = Math.max(...areas);
      return most ? (most - Math.min(...areas)) / most : 0;
    });
    drawn = changes.indexOf(Math.max(...changes));
    if ($("class")) $("class").value = String(drawn);
  }
  return drawn;
}

function curve() {
  const control = active, unit = measure()[1], at = chosenClass();
  if (!control) return;
  const name = control.guidance ? "guidance" : control.name;
  const slice = shown.told.planes.length > 1 ? ` in slice ${shown.told.planes[shown.plane] + 1}` : "";
  $("area-title").textContent = `Area${foreground.length > 1 ? ` of ${foreground[at]}` : ""} by ${name}${control.unit ? ` (${control.unit.trim()})` : ""}${slice}`;
  const wide = Math.max(240, $("curve").clientWidth);
  const picture = control.stops.length ? lines(control, wide, unit, at) : bars(control, wide, unit, at);
  const entries = [...control.stops, ...control.choices].filter((one) => isThere(areaOf(one, at)));
  const totals = entries.map((one) => areaOf(one, at));
  const least = totals.indexOf(Math.min(...totals)), most = totals.indexOf(Math.max(...totals));
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", `${$("area-title").textContent}: from ${format(totals[least])} ${unit} at ${entries[least].text} to ${format(totals[most])} ${unit} at ${entries[most].text}`);
  $("curve").replaceChildren(picture);
  const trained = entries.filter((one) => one.at !== null || one.text !== "unknown").filter((one) => !one.beyond).map((one) => areaOf(one, at));
  const known = control.guidance ? "guidance 0 to 1" : control.field.cases ? `the trained values of ${name}` : `the values of ${name} in the schema`;
  const every = entries.length === control.stops.length + control.choices.length;
  $("spread").textContent = every && trained.length ? `Over ${known} the area goes from ${format(Math.min(...trained))} to ${format(Math.max(...trained))} ${unit}. ` : "";
  $("spread").append(intervalOf(0, at) ? "" : "How sure the mask is, this page cannot say: no interval of the area is known here.");
  if (!$("of-numbers").open) return;
  const head = make("tr");
  head.append(make("th", name, { scope: "col" }), ...foreground.map((one) => make("th", `${one} (${unit})`, { scope: "col" })));
  const told = (one, at) => format(areaOf(one, at)) + (intervalOf(one.state, at) ? ` (${intervalOf(one.state, at).map(format).join(" to ")})` : "");
  const own = current && current.control === control ? current.entry : entries.find((one) => one.given);
  $("numbers").replaceChildren(head, ...entries.map((one) => {
    const row = make("tr", null, one === own ? { class: "now" } : {});
    row.append(make("th", one.text + (one.given ? " (given)" : "") + (one.beyond ? " ⚠" : ""), { scope: "row" }),
               ...foreground.map((_, at) => make("td", told(one, at))));
    return row;
  }));
}

function ticks(most) {
  const raw = most / 3 || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= raw);
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, at) => at * step);
}

function lines(control, wide, unit, at) {
  const stops = control.stops, high = 220, left = 58, right = 14, top = 22, bottom = 26;
  const log = control.field && control.field.log, place = (at) => (log ? Math.log(at) : at);
  const low = place(stops[0].at), end = place(stops[stops.length - 1].at);
  const x = (at) => left + ((place(at) - low) / (end - low || 1)) * (wide - left - right);
  const truth = shown.told.true_areas ? shown.told.true_areas[shown.plane][at] * measure()[0] : null;
  const most = Math.max(1e-9, truth || 0, ...[...stops, ...control.choices].flatMap((one) => [areaOf(one, at) || 0, ...(intervalOf(one.state, at) || [])]));
  const y = (value) => high - bottom - (value / most) * (high - top - bottom);
  const root = svg("svg", { width: wide, height: high, viewBox: `0 0 ${wide} ${high}` });
  if (control.field) {
    const [from, to] = control.field.trained.map((one) => Math.min(wide - right, Math.max(left, x(one))));
    root.append(svg("rect", { x: from, y: top, width: Math.max(0, to - from), height: high - top - bottom, fill: "#eef3f7" }),
                svg("text", { x: (from + to) / 2, y: 13, "text-anchor": "middle", fill: "#545e68" }, control.field.cases ? "trained values" : "values of the schema"));
  }
  for (const value of ticks(most)) {
    root.append(svg("line", { x1: left, x2: wide - right, y1: y(value), y2: y(value), stroke: "#dfe4e8" }),
                svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end", fill: "#1c2126" }, format(value)));
  }
  root.append(svg("text", { x: 2, y: 13, fill: "#545e68" }, unit));
  let free = -60;
  for (const value of [...new Set([stops[0], stops[Math.floor(stops.length / 4)], stops[Math.floor(stops.length / 2)], stops[Math.floor((3 * stops.length) / 4)], stops[stops.length - 1]])]) {
    if (x(value.at) - free < 52) continue;
    free = x(value.at);
    const anchor = value === stops[stops.length - 1] ? "end" : "middle";
    root.append(svg("text", { x: x(value.at) + (anchor === "end" ? right : 0), y: high - 8, "text-anchor": anchor, fill: "#1c2126" }, format(value.at)));
  }
  const sure = stops.filter((one) => intervalOf(one.state, at)).map((one) => [x(one.at), ...intervalOf(one.state, at).map(y)]);
  if (sure.length) {
    const ends = [...sure.map(([to, low]) => `${to},${low}`), ...sure.reverse().map(([to, , upper]) => `${to},${upper}`)];
    root.append(svg("polygon", { points: ends.join(" "), fill: css(classColour(at + 1)), "fill-opacity": 0.25, class: "interval" }));
  }
  const given = stops.find((one) => one.given);
  if (given) root.append(svg("line", { x1: x(given.at), x2: x(given.at), y1: top, y2: high - bottom, stroke: "#1c2126", "stroke-width": 1.4, "stroke-dasharray": "5 4" }));
  const own = current && current.control === control ? current.entry : [...stops, ...control.choices].find((one) => one.given);
  const colour = dark(classColour(at + 1));
  if (truth !== null) root.append(svg("line", { x1: left, x2: wide - right, y1: y(truth), y2: y(truth), stroke: "#1c2126", "stroke-width": 1.4, "stroke-dasharray": "2 3" }));
  root.append(svg("polyline", { points: stops.filter((one) => isThere(areaOf(one, at))).map((one) => `${x(one.at)},${y(areaOf(one, at))}`).join(" "), fill: "none", stroke: colour, "stroke-width": 2.4 }));
  if (own && own.at === null) {  // of what is no number: a level
    const level = y(areaOf(own, at));
    root.append(svg("line", { x1: left, x2: wide - right, y1: level, y2: level, stroke: "#b2420a", "stroke-width": 2 }),
                svg("text", { x: wide - right, y: level - 5, "text-anchor": "end", fill: "#b2420a", "font-weight": 600 }, own.text));
  } else if (own) root.append(svg("circle", { cx: x(own.at), cy: y(areaOf(own, at)), r: 5.5, fill: "#b2420a", stroke: "#fff", "stroke-width": 1.5 }));
  if (given) {
    const far = x(given.at) > wide - 70;
    root.append(svg("text", { x: x(given.at) + (far ? -5 : 5), y: high - bottom - 6, "text-anchor": far ? "end" : "start", fill: "#1c2126", ...HALO }, "given"));
  }
  if (truth !== null) root.append(svg("text", { x: left + 4, y: y(truth) + (y(truth) < top + 14 ? 14 : -5), fill: "#1c2126", ...HALO }, "true"));
  return root;
}

function bars(control, wide, unit, at) {
  const entries = control.choices.filter((one) => isThere(areaOf(one, at))), row = 27, left = Math.min(150, wide * 0.38), right = 74;
  const totals = entries.map((one) => areaOf(one, at));
  const most = Math.max(1e-9, ...totals, ...entries.flatMap((one) => intervalOf(one.state, at) || []));
  const root = svg("svg", { width: wide, height: entries.length * row + 20, viewBox: `0 0 ${wide} ${entries.length * row + 20}` });
  const own = current && current.control === control ? current.entry : entries.find((one) => one.given);
  entries.forEach((entry, place) => {
    const y = place * row, isOwn = entry === own, text = { fill: isOwn ? "#b2420a" : "#1c2126", "font-weight": isOwn ? 700 : 400 };
    const words = entry.text + (entry.given ? " (given)" : "") + (entry.beyond ? " ⚠" : ""), most_letters = Math.floor(left / 7);
    root.append(svg("text", { x: 0, y: y + 18, ...text }, words.length > most_letters ? `${words.slice(0, most_letters - 1)}…` : words));
    const width = Math.max((totals[place] / most) * (wide - left - right), 0.5), x = left + width;
    root.append(svg("rect", { x: left, y: y + 5, width, height: row - 10, fill: dark(classColour(at + 1)), stroke: isOwn ? "#b2420a" : "none", "stroke-width": 2 }));
    const ends = intervalOf(entry.state, at), to = (value) => left + (value / most) * (wide - left - right);
    if (ends) root.append(svg("path", { d: `M${to(ends[0])} ${y + row / 2}H${to(ends[1])}M${to(ends[0])} ${y + 9}v9M${to(ends[1])} ${y + 9}v9`, stroke: "#1c2126", "stroke-width": 1.6, class: "interval" }));
    root.append(svg("text", { x: Math.max(x, ends ? to(ends[1]) : 0) + 6, y: y + 18, ...text }, format(totals[place])));
  });
  root.append(svg("text", { x: left, y: entries.length * row + 14, fill: "#545e68" }, unit));
  return root;
}

// ---- gates

/** Dark blue, grey, yellow, evenly rising in lightness, after cividis. */
function shade(share) {
  const points = [[0, 34, 78], [87, 93, 109], [165, 156, 116], [254, 232, 56]], at = Math.min(2.9999, share * 3);
  const from = points[Math.floor(at)], to = points[Math.floor(at) + 1], part = at - Math.floor(at);
  return from.map((one, place) => Math.round(one + part * (to[place] - one)));
}

function showGates() {
  const { gates, told } = shown;
  $("of-gates").hidden = !gates;
  if (!gates || !$("of-gates").open) return;
  const row = told.gated.indexOf(state()), given = told.gated.indexOf(0);
  if (row < 0) {
    $("gates").replaceChildren(make("p", "Under guidance the network runs twice, with the metadata and without: no one set of gates belongs to this mask."));
    return;
  }
  const wide = sum(model.gates.map((one) => one.shown)), [low, high] = model.scale;
  let from = 0;
  $("gates").replaceChildren(...model.gates.map((gate) => {
    const values = gates.subarray(row * wide + from, row * wide + from + gate.shown);
    const before = given < 0 ? null : gates.subarray(given * wide + from, given * wide + from + gate.shown);
    from += gate.shown;
    const strip = make("canvas", null, { width: gate.shown, height: 1, "aria-hidden": "true" }), context = strip.getContext("2d");
    values.forEach((value, at) => { context.fillStyle = css(shade(value / 255)); context.fillRect(at, 0, 1, 1); });
    const gap = before ? (sum(Array.from(values, (value, at) => Math.abs(value - before[at]))) / values.length / 255) * (high - low) : 0;
    const line = make("div", null, { class: "gate" });
    const count = gate.shown < gate.channels ? `, ${gate.shown} of ${gate.channels} channels` : "";
    line.append(make("span", gate.name, { title: gate.name + count }), strip, make("span", gap.toFixed(3)));
    return line;
  }), make("p", `Scales from ${format(low)} (dark blue) to ${format(high)} (yellow).${model.gates.some((one) => one.shown < one.channels) ? " Of wide gates evenly chosen channels are shown." : ""}`, { class: "soft" }));
}

// ---- events

if (foreground.length > 1) {
  foreground.forEach((name, at) => $("class").append(make("option", name, { value: at })));
  $("of-class").hidden = false;
  $("class").addEventListener("change", () => { drawn = Number($("class").value); curve(); });
}
const fail = (error) => { $("warning").hidden = false; $("warning").textContent = `⚠ ${error.message}`; };
$("as-given").addEventListener("click", () => { current = null; show(); });
for (const id of ["show-mask", "show-difference", "show-truth"]) $(id).addEventListener("change", show);
const toPlane = (plane) => { shown.plane = Math.max(0, Math.min(shown.told.planes.length - 1, plane)); show(); };
$("slice").addEventListener("input", () => toPlane(Number($("slice").value)));
$("image").addEventListener("wheel", (event) => {
  if (!shown || shown.told.planes.length < 2 || event.ctrlKey) return;
  event.preventDefault();
  if (event.deltaY) toPlane(shown.plane + Math.sign(event.deltaY));
}, { passive: false });
$("of-gates").addEventListener("toggle", () => shown && showGates());
$("of-numbers").addEventListener("toggle", () => shown && complete() && curve());
let wide = 0;
$("untold").hidden = model.fields.some((field) => field.cases);
new ResizeObserver(() => {
  if (shown && Math.round($("curve").clientWidth) !== wide) { wide = Math.round($("curve").clientWidth); show(); }
}).observe($("curve"));
if (model.cases.length) {
  const go = (number) => open(number).catch(fail);
  model.cases.forEach((one, at) => $("case").append(make("option", one.name, { value: at })));
  $("case").addEventListener("change", () => go(Number($("case").value)));
  $("previous").addEventListener("click", () => go(shown.number - 1));
  $("next").addEventListener("click", () => go(shown.number + 1));
  go(0);
}
