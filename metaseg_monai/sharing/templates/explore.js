"use strict";
// The live page: an image is dropped in, and masks are asked for when they are to be seen.
let chosen = null;   // the file
let working = false; // whether a mask is being asked for

const suffixOf = (name) => (/(\.nii\.gz|\.[^.]*)$/i.exec(name) || [""])[0].toLowerCase();

async function answered(address, given) {
  let response;
  try {
    response = await fetch(address, given);
  } catch {
    throw new Error("The program that answers this page has ended; start explore again, and open its new address.");
  }
  if (!response.ok) throw Object.assign(new Error(await response.text()), { status: response.status });
  return response.json();
}

// ---- the image and its metadata

for (const field of model.fields) {
  const id = `given-${field.id}`, row = make("p"), names = field.options.filter((one) => one.at === null && one.text !== "unknown");
  const unknown = field.options.some((one) => one.text === "unknown");
  const none = unknown ? (model.tags[field.name] ? "unknown, or what the DICOM file says" : "unknown") : "choose";
  row.append(make("label", field.name + (field.unit ? ` (${field.unit})` : ""), { for: id }));
  const entry = names.length && field.kind !== "multi-label" ? make("select", null, { id }) : make("input", null, { id, autocomplete: "off" });
  if (entry.tagName === "SELECT") {
    entry.append(make("option", none, { value: "" }), ...names.map((one) => make("option", one.text, { value: one.text })));
  } else entry.placeholder = unknown ? none : "";
  entry.required = !unknown && !model.tags[field.name];
  row.append(entry);
  if (field.trained) row.append(make("span", trainedWords(field), { class: "soft" }));
  $("given").append(row);
}

function refuse(text) {
  $("refused").hidden = !text;
  $("refused").textContent = text ? `⚠ ${text}` : "";
}

async function begin() {
  const token = ++opening;
  refuse("");
  if (!chosen) return refuse("Choose an image first.");
  if (!$("start").reportValidity()) return;
  if (chosen.size > model.most_bytes) return refuse(`The image has more than ${Math.floor(model.most_bytes / 2 ** 20)} MiB; use predict.`);
  const metadata = {};
  for (const field of model.fields) {
    const value = $(`given-${field.id}`).value.trim();
    if (value) metadata[field.name] = value;
  }
  const query = new URLSearchParams({ kind: suffixOf(chosen.name), metadata: JSON.stringify(metadata) });
  $("segment").disabled = true;
  $("doing").textContent = "Reading …";
  try {
    const told = await answered(`case?${query}`, { method: "POST", body: chosen });
    if (token !== opening) return;
    $("page").hidden = false;
    $("name").textContent = chosen.name;
    present({ number: told.number, told, name: chosen.name, runs: null, gates: null, pictures: [], refused: new Map() });
  } catch (error) {
    refuse(error.message);
  } finally {
    $("segment").disabled = false;
    $("doing").textContent = "";
  }
}

function choose(files) {
  if (!files.length) return;
  if (files.length > 1) return refuse("Give one image; a DICOM series as one .zip.");
  chosen = files[0];
  const lacks = model.fields.some((field) => !$(`given-${field.id}`).checkValidity());
  if (lacks) refuse("Now give its metadata.");
  else begin();
}

$("file").addEventListener("change", () => choose($("file").files));
$("start").addEventListener("submit", (event) => { event.preventDefault(); begin(); });
for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  $("file").files = event.dataTransfer.files;  // which shows its name
  choose($("file").files);
});

// ---- masks, when they are to be seen

/** The state to be asked for next: what is to be seen now, then those of the curve, a few first. */
function wanted() {
  const masks = masksOf(shown.plane), lacks = (one) => !masks[one] && !shown.refused.has(one);
  const now = [0, state()].find(lacks);
  if (now !== undefined || !active) return now;
  const every = [...active.choices, ...active.stops].map((one) => one.state);
  return [...every.filter((_, at) => at % 5 === 0), ...every].find(lacks);
}

complete = () => {
  const masks = masksOf(shown.plane);
  const why = shown.refused.get(state()) || shown.refused.get(0);
  const there = shown.pictures[shown.plane] && masks[0] && masks[state()];
  if (why) fail(why);
  $("image").setAttribute("aria-busy", String(!there && !why));
  $("busy").hidden = Boolean(there || why);
  work();
  return Boolean(there);
};

async function work() {
  if (working) return;
  working = true;
  try {
    while (shown) {
      const own = shown, plane = own.plane, next = wanted();
      if (!own.pictures[plane]) own.pictures[plane] = await picture(own.told.pictures[plane]);
      if (own !== shown) continue;
      if (next === undefined) break;
      const seen = next === 0 || next === state();
      let told;
      try {
        told = await answered(`mask?case=${own.number}&state=${next}&plane=${plane}`);
      } catch (error) {
        if (error.status !== 422) throw error;
        own.refused.set(next, error);  // such as a value that an export in int8 was not calibrated for
        if (seen) show();
        continue;
      }
      const runs = await inflate(told.masks);
      (own.masks[plane] ??= [])[next] = decoded(runs, 0, own.pixels);
      own.told.areas[next][plane] = told.areas;
      own.told.intervals[next][plane] = told.intervals;
      if (own !== shown) continue;
      if (seen || next === state()) show();
      else if (plane === own.plane && own.masks[plane][state()]) curve();
    }
  } catch (error) {
    $("busy").hidden = true;
    fail(error);
  } finally {
    working = false;
  }
}
