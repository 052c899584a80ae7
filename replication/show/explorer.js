// What the page of explorer.html.j2 draws. The form holds all that is chosen, and the link's hash
// holds the form. A map's values are lists [n-1][l] over blocks: n layers from layer l on.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const FORM = document.querySelector("form");
const SIDES = ["left", "right"];
const SENT = {};  // what files said, by the label of their map
const RESCALED = "rescaled distance", SHARE = "in an island, % of draws";
const VIEWS = {
  [RESCALED]: map => map.now.rescaled,
  "distance": map => map.distance,
  "standard error of the distance": map => map.error,
  [SHARE]: map => map.now.share[map.place],
  "damage: rise of the C4 loss, nats": map => map.damage,
  "run twice: rise of the C4 loss, nats": map => map.twice,
};
const SCORED = DATA.scored.map(task => DATA.tasks[task]);
for (const task of SCORED) VIEWS[`${task}, not healed`] = map => map.scored[task];
const MORE_IS_BETTER = / by (letter|content)/;  // of views: accuracies
const BUTTONS = { displaylogo: false, responsive: true, modeBarButtons: [["toImage", "resetScale2d"]] };
const LOOK = { font: { size: 12 }, showlegend: false, hovermode: "closest", margin: { t: 28, r: 60, l: 55, b: 50 } };

// ---- values ---------------------------------------------------------------------------------

const chosen = name => FORM.elements[name].value;
const on = name => FORM.elements[name].checked;
const known = value => value !== null && value !== undefined;
const row = (grid, n) => grid?.[n - 1] ?? [];
const at = (grid, l, n) => row(grid, n)[l] ?? null;
const rank = (values, l) => 1 + values.filter(v => known(v) && v < values[l]).length;
const layersOf = ({ l, n }) => n === 1 ? `drops layer ${l}` : `drops layers ${l} to ${l + n - 1}`;
const fixed = (value, digits) => known(value) ? value.toFixed(digits) : "–";
const withError = (value, error, digits = 4) => `${fixed(value, digits)}\u00a0±\u00a0${fixed(error, digits)}`;
const escaped = text => Object.assign(document.createElement("i"), { textContent: text }).innerHTML;

// A map as Python sends it, with its rows laid out: lists [n-1][l], and the scores by block
function prepared(map) {
  const grid = (rows, column) => {
    const values = map.distance.map(line => line.map(() => null));
    for (const cell of rows) {
      if (values[cell.block_size - 1]) values[cell.block_size - 1][cell.block_start] = cell[column];
    }
    return values;
  };
  map.whole.rescaled = map.distance.map(line => {
    const here = line.filter(known), low = Math.min(...here), spread = Math.max(...here) - low || 1;
    return line.map(v => known(v) ? (v - low) / spread : null);
  });
  const { damage, scores } = map;
  map.damage = damage.length ? grid(damage, "value") : null;
  map.damage_error = grid(damage, "standard_error");
  map.twice = map.repeats?.length ? grid(map.repeats, "value") : null;
  map.by_text = grid(damage, "examples");
  map.scored = {};
  for (const task of DATA.scored) {
    const rows = scores.filter(score => score.task === task && score.treatment === "unhealed");
    const count = shots => rows.filter(score => score.shots === shots).length;
    const most = rows.map(score => score.shots).sort((a, b) => count(b) - count(a))[0];  // those of the most blocks
    if (rows.length) map.scored[DATA.tasks[task]] = grid(rows.filter(score => score.shots === most), "value");
  }
  if (map.twin) prepared(map.twin);
  map.scores = {};
  for (const score of scores) {
    const task = (DATA.tasks[score.task] ?? score.task) + score.shots;
    (map.scores[`${score.block_start},${score.block_size}`] ??= []).push({ ...score, task });
  }
  return map;
}

// l*(n)
function best(map, n) {
  const values = row(map.now.rescaled, n), here = values.filter(known);
  return values.indexOf(here.length ? Math.min(...here) : undefined);
}

const isTwin = side => side === "right" && on("twin") && "twin" in DATA.maps[chosen("left")];
const nameOf = side => isTwin(side) ? `${chosen("left")}, growth only` : chosen(side);

// The map of a side, with its islands `now`: at the chosen threshold
function mapOf(side) {
  const map = isTwin(side) ? DATA.maps[chosen("left")].twin : DATA.maps[chosen(side)];
  map.now = map.whole;
  map.place = DATA.thresholds.indexOf(Number(chosen("threshold")));
  map.regions = map.now.regions[map.place];
  map.islands = map.now.islands[map.place];
  map.scale = on("relative") ? 1 / map.layers : 1;
  return map;
}

// The chosen block on a side
const blockOf = (side, maps) => matched({ l: Number(chosen("l")), n: Number(chosen("n")) },
  maps[chosen("side")].layers, maps[side].layers);

// A block in a model of `to` layers: the same, or the same shares of the layers; null: too large
function matched(block, from, to) {
  const scaled = value => on("relative") ? Math.round(value / from * to) : value;
  const l = scaled(block.l), n = Math.max(1, scaled(block.n));
  return n < to && l + n <= to ? { l, n } : null;
}

function region(map, l, n) {
  const label = at(map.regions, l, n) ?? -1, others = ["too large to be searched", "not similar", "in the main region"];
  if (label < 2) return others[label + 1];
  return `in island ${label - 1} (stability ${fixed(map.islands[label - 2].stability, 2)})`;
}

// The ends of the colours of some grids; a twentieth of the values lies above
function ends(grids) {
  const values = grids.flat(2).filter(known).sort((a, b) => a - b);
  return [values[0] ?? 0, values[Math.floor(0.95 * (values.length - 1))] || 1];
}

// ---- drawings -------------------------------------------------------------------------------

const plot = (place, traces, layout) => Plotly.react(place, traces, { ...LOOK, ...layout }, BUTTONS);
const axis = (text, more) => ({ title: { text }, ...more });
const heat = (x, y, z, more) => ({ type: "heatmap", x, y, z, hoverongaps: false, colorbar: { thickness: 12 }, ...more });
const upright = (x, color, dash) => ({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color, dash } });
const startAxis = map => axis("block start l" + (on("relative") ? ", share of the layers" : " (layer)"),
  { range: [-0.5 * map.scale, (map.layers - 0.5) * map.scale] });

// The border of the cells with a label, as one line with gaps
function border(grid, label, scale) {
  const ends = [], is = (n, l) => grid[n]?.[l] === label;
  for (let n = 0; n <= grid.length; n++) for (let l = 0; l <= grid[0].length; l++) {
    if (is(n, l) !== is(n - 1, l)) ends.push([l - 0.5, n + 0.5], [l + 0.5, n + 0.5], []);
    if (is(n, l) !== is(n, l - 1)) ends.push([l - 0.5, n + 0.5], [l - 0.5, n + 1.5], []);
  }
  const [x, y] = [0, 1].map(i => ends.map(end => end.length ? end[i] * scale : null));
  return { x, y, mode: "lines", hoverinfo: "skip" };
}

function hover(map, l, n) {
  const d = at(map.distance, l, n), damage = at(map.damage, l, n);
  return known(d) ? `Block(${l}, ${n}): ${layersOf({ l, n })}<br>d = ${withError(d, at(map.error, l, n))}, `
    + `rank ${rank(row(map.distance, n), l)} of its size<br>rescaled ${fixed(at(map.now.rescaled, l, n), 3)}, `
    + region(map, l, n) + (known(damage) ? `<br>damage ${damage.toFixed(3)} nats` : "")
    + SCORED.map(task => [task, at(map.scored[task], l, n)]).filter(([, score]) => known(score))
      .map(([task, score]) => `<br>${task} ${score.toFixed(3)}`).join("") : "";
}

function drawMap(place, map, block, maps) {
  const view = chosen("view"), of = VIEWS[view], scale = map.scale;
  const [zmin, zmax] = view === RESCALED ? [0, 1] : ends(SIDES.map(side => of(maps[side]) ?? []));
  const sizes = map.distance.map((_, i) => i + 1), starts = map.distance[0].map((_, l) => l);
  const marks = (blocks, marker) => ({ x: blocks.map(b => b.l * scale), y: blocks.map(b => b.n * scale),
    mode: "markers", hoverinfo: "skip", marker });
  const every = value => sizes.map(n => starts.map(l => value(map, l, n)));
  const cells = (value, more) => heat(starts.map(l => l * scale), sizes.map(n => n * scale), every(value),
    { text: every(hover), hovertemplate: "%{text}<extra></extra>", ...more });
  const traces = [cells((_, l, n) => known(at(map.distance, l, n)) ? 0 : null,  // grey: a block without a value
    { colorscale: [[0, "#e4e4e8"], [1, "#e4e4e8"]], showscale: false }),
  cells((_, l, n) => at(of(map), l, n), { zmin, zmax, colorscale: view === SHARE ? "Blues" : "Viridis",
    reversescale: !MORE_IS_BETTER.test(view) }), { ...border(map.regions, 1, scale), line: { color: "#000", width: 2.2 } }];
  const annotations = map.islands.map(({ island }) => {
    const line = border(map.regions, island + 1, scale);
    traces.push({ ...line, line: { color: "#fff", width: 5 } }, { ...line, line: { color: "#e0109d", width: 2.2 } });
    return { text: island, x: Math.min(...line.x.filter(known)), y: Math.max(...line.y.filter(known)),
      xanchor: "right", yanchor: "bottom", showarrow: false, bgcolor: "#fff", font: { color: "#b5007f" } };
  });
  traces.push(marks(sizes.map(n => ({ l: best(map, n), n })).filter(b => b.l >= 0), { color: "#000", size: 4 }));
  if (block) traces.push(marks([block], { symbol: "square-open", color: "#f00", size: 13, line: { width: 3 } }));
  if (!of(map)) annotations.push({ text: "not measured for this map", showarrow: false, font: { size: 16 },
    x: 0.5, y: 0.8, xref: "paper", yref: "paper" });
  const half = (map.regions.length + 0.5) * scale;
  plot(place, traces, { annotations, xaxis: startAxis(map),
    yaxis: axis("block size n" + (on("relative") ? ", share" : " (layers)"), { range: [0, map.layers * scale] }),
    shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: half, y1: half, line: { dash: "dot", color: "#666" } }] });
}

// The row of the chosen size: distance, and damage on the right, with their standard errors
function drawRow(place, map, block) {
  const n = block?.n ?? map.layers, traces = [];
  const add = (values, errors, yaxis, color, dash) => traces.push({ x: row(values, n).map((_, l) => l * map.scale),
    y: row(values, n), error_y: { array: row(errors, n) }, yaxis, mode: "lines+markers", line: { color, dash }, marker: { size: 5 } });
  add(map.distance, map.error, "y", "#00798c", "solid");
  if (map.damage) add(map.damage, map.damage_error, "y2", "#de8f05", "dot");
  plot(place, traces, { xaxis: startAxis(map), yaxis: axis("distance", { rangemode: "tozero", color: "#00798c" }),
    yaxis2: axis("damage (nats)", { rangemode: "tozero", color: "#a86a00", overlaying: "y", side: "right", tickmode: "auto",
      showgrid: false }),
    title: { text: block ? `blocks of size n = ${n} (red: the chosen one, dashed: l*)` : "", font: { size: 12 } },
    shapes: block ? [upright(block.l * map.scale, "#f00"), upright(best(map, n) * map.scale, "#000", "dash")] : [] });
}

// How many islands there are at every threshold; a filled mark: all of them are stable
function drawCount(place, map) {
  const traces = [["shallower", "#b5007f", "solid"], ["deeper", "#4a6fe3", "dot"]].map(([side, color, dash]) => {
    const islands = map.now.islands.map(table => table.filter(island => island.side === side));
    const symbol = islands.map(table => table.every(island => island.stability >= 0.95) ? "circle" : "circle-open");
    return { x: DATA.thresholds, y: islands.map(table => table.length), mode: "lines+markers", line: { color, dash },
      name: `${side} than the main region`, marker: { symbol, size: islands.map(table => table.length ? 7 : 1) } };
  });
  plot(place, traces, { showlegend: true, legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom" },
    xaxis: axis("threshold (filled marks: all islands are stable)"),
    yaxis: axis("number of islands", { rangemode: "tozero", dtick: 1 }),
    shapes: [upright(Number(chosen("threshold")), "#000", "dash")] });
}

// Right minus left, on shares of the layers: each cell of the deeper map, and the nearest of the other
function drawDifference(place, maps) {
  place.hidden = !on("difference");
  if (place.hidden) return;
  const layers = Math.max(maps.left.layers, maps.right.layers), cells = [...Array(layers).keys()];
  const near = (map, l, n) => at(VIEWS[chosen("view")](map), Math.round(l / layers * map.layers),
    Math.max(1, Math.round(n / layers * map.layers)));
  const z = cells.slice(1).map(n => cells.map(l => {
    const values = SIDES.map(side => l + n <= layers ? near(maps[side], l, n) : null);
    return values.every(known) ? values[1] - values[0] : null;
  }));
  const isEmpty = !z.flat().some(known);
  const annotations = isEmpty ? [{ text: "not measured for both maps", showarrow: false, font: { size: 16 },
    x: 0.5, y: 0.5, xref: "paper", yref: "paper" }] : [];
  const most = ends([z.map(line => line.map(v => known(v) ? Math.abs(v) : null))])[1];
  plot(place, [heat(cells.map(l => l / layers), cells.slice(1).map(n => n / layers), z, { zmin: -most, zmax: most,
    colorscale: "RdBu", hovertemplate: "l/L = %{x:.2f}, n/L = %{y:.2f}<br>right minus left: %{z:.4f}<extra></extra>" })],
  { annotations, title: { text: `${chosen("view")}: right minus left`, font: { size: 14 } },
    xaxis: axis("block start l, share of the layers"), yaxis: axis("block size n, share") });
}

// ---- texts ----------------------------------------------------------------------------------

function card(map, block) {
  if (!block) return `No such block: this model has ${map.layers} layers. Click a block of its own, or choose relative axes.`;
  const { l, n } = block, d = at(map.distance, l, n), damage = at(map.damage, l, n), of = map.layers - n + 1;
  const lines = [["distance", `${withError(d, at(map.error, l, n))} of a half turn (${(180 * d).toFixed(1)}°)`],
    ["rank", `${rank(row(map.distance, n), l)} of ${of} blocks of this size; l*(${n}) = ${best(map, n)}`],
    ["rescaled", `${fixed(at(map.now.rescaled, l, n), 3)}, ${region(map, l, n)}`],
    ["in an island", `${at(map.now.share[map.place], l, n) ?? "–"} % of the draws of texts`],
    ["damage", known(damage) ? `${withError(damage, at(map.damage_error, l, n))} nats of C4 loss; rank `
      + `${rank(row(map.damage, n), l)} of ${of}` : "not measured"]];
  const key = `${l},${n}`, scores = map.scores[key] ?? [];
  for (const task of new Set(scores.map(score => score.task))) lines.push([escaped(task), scored(
    scores.filter(score => score.task === task), map.scores["0,0"]?.filter(score => score.task === task) ?? [])]);
  return `<b>Block(${l}, ${n})</b> ${layersOf(block)} of ${map.layers}. Click the grey text to copy it.<table>`
    + lines.map(([name, text]) => `<tr><th>${name}</th><td>${text}</td></tr>`).join("")
    + `</table>${written(map, key)}${hurt(map, block)}<pre>Block(${l}, ${n})</pre>`
    + (map.model && `<pre>make prune MODEL=${escaped(map.model)} START=${l} LAYERS=${n} OUT=smaller</pre>`);
}

// The scores of a task: after dropping the block, next to the whole model's; healed ones folded
function scored(dropped, whole) {
  const say = score => withError(score.value, score.standard_error, 3);
  const one = (scores, treatment, before) => scores.filter(score => score.treatment === treatment).map(s => before + say(s));
  const healed = (scores, before) => scores.filter(score => score.treatment.startsWith("healed"))
    .map(score => `${before}${score.treatment} ${say(score)}`);
  const plain = [...one(dropped, "unhealed", ""), ...one(whole, "unpruned", "whole model ")];
  const more = [...healed(dropped, ""), ...healed(whole, "whole model ")];
  return plain.join("; ") + (more.length ? `<details><summary>healed</summary>${more.join("<br>")}</details>` : "");
}

// What the model writes after each prompt, whole and after dropping the block
function written(map, key) {
  const texts = map.texts[key], whole = map.texts["0,0"];
  if (!whole) return "";
  if (!texts) return "<p class='soft'>What it writes was not recorded for this block.</p>";
  const rest = text => `<q>… ${escaped(text.trim()) || "(nothing)"}</q>`;
  return "<table class='written'><tr><th>it writes after<th>whole<th>this block dropped</tr>" + map.prompts.map((prompt, i) =>
    `<tr><td>${escaped(prompt)}</td><td>${rest(whole[i])}</td><td>${rest(texts[i])}</td></tr>`).join("") + "</table>";
}

// The texts whose loss rises most when the block is dropped, and the one whose loss rises least
function hurt(map, { l, n }) {
  const rises = at(map.by_text, l, n);
  if (!rises || rises.length !== DATA.texts.length) return "";
  const order = [...rises.keys()].sort((a, b) => rises[b] - rises[a]);
  const rows = [...order.slice(0, 3), order.at(-1)].map(i =>
    `<tr><td>${fixed(rises[i], 2)}</td><td>${escaped(DATA.texts[i])} …</td></tr>`);
  return `<details><summary>which texts it changes most</summary><table class='texts'><tr><th>nats<th>of ${rises.length} texts, `
    + `the three whose loss rises most, and the one whose loss rises least</tr>${rows.join("")}</table></details>`;
}

function table(map) {
  const rows = map.islands.map(i => `<tr data-l="${i.block_start}" data-n="${i.block_size}"><td>${[i.island, i.side,
    `${i.first_start}–${i.last_start}`, `${i.smallest_size}–${i.largest_size}`, i.area,
    `Block(${i.block_start}, ${i.block_size})`, fixed(i.stability, 2), { true: "yes", false: "no" }[i.by_growth] ?? "–"]
    .join("</td><td>")}</td></tr>`);
  return rows.length ? "<table><tr><th>island<th>side<th>starts<th>sizes<th>blocks<th>most similar<th>stability<th>by growth</tr>"
    + rows.join("") + "</table>" : "No islands at this threshold.";
}

// ---- the form and the link ------------------------------------------------------------------

function draw() {
  for (const shown of FORM.querySelectorAll("output")) shown.value = shown.previousElementSibling.value;
  const maps = Object.fromEntries(SIDES.map(side => [side, mapOf(side)]));
  for (const [side, map] of Object.entries(maps)) {
    const part = name => document.querySelector(`#${side} .${name}`), block = blockOf(side, maps);
    part("name").textContent = nameOf(side);
    part("source").textContent = map.source;
    part("card").innerHTML = card(map, block);
    part("card").classList.toggle("chosen", side === chosen("side"));
    part("found").innerHTML = table(map);
    drawMap(part("map"), map, block, maps);
    drawRow(part("row"), map, block);
    drawCount(part("count"), map);
  }
  drawDifference(document.getElementById("difference"), maps);
  const hash = `#${new URLSearchParams(new FormData(FORM))}`;
  if (location.protocol !== "about:") history.replaceState(null, "", hash);  // about: inside a notebook
}

function restore(text) {
  const hash = new URLSearchParams(text.slice(1));
  for (const field of FORM.elements) {
    if (field.type === "checkbox") field.checked = hash.has(field.name);
    else if (hash.has(field.name)) field.value = hash.get(field.name);
    if (field.selectedIndex === -1) field.selectedIndex = 0;  // a map that this page does not have
  }
  draw();
}

function begin() {
  const { n, l, view } = FORM.elements;
  view.append(...Object.keys(VIEWS).map(name => new Option(name)));
  const toBest = () => { l.value = Math.max(0, best(mapOf(chosen("side")), Number(n.value))); };
  toBest();
  restore(location.hash);
  addEventListener("hashchange", () => restore(location.hash));
  FORM.addEventListener("input", event => {
    if (event.target === n) toBest();
    if (event.target.name === "right") FORM.elements.twin.checked = false;
    draw();
  });
  // The arrows move the chosen block: left and right its start, up and down its size
  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  addEventListener("keydown", event => {
    const step = STEPS[event.key], map = mapOf(chosen("side"));
    if (!step || event.altKey || event.ctrlKey || event.metaKey || event.target.matches("input, select")) return;
    event.preventDefault();
    const start = Number(l.value) + step[0], size = Number(n.value) + step[1];
    if (start >= 0 && size >= 1 && size < map.layers && start + size <= map.layers) choose(chosen("side"), start, size);
  });
  const choose = (side, start, size) => {
    [FORM.elements.side.value, l.value, n.value] = [side, start, size];
    draw();
  };
  for (const link of document.querySelectorAll(".looks a")) link.addEventListener("click", event => {
    event.preventDefault();  // inside a notebook a link would leave the page
    restore(link.hash);
    if (matchMedia("(max-width: 900px)").matches) document.getElementById(chosen("side")).scrollIntoView();
  });
  document.addEventListener("click", ({ target }) => {
    const island = target.closest("tr[data-l]")?.dataset;
    if (island) choose(target.closest(".side").id, island.l, island.n);
    if (target.matches("pre")) navigator.clipboard?.writeText(target.textContent);  // it is selected, too
  });
  for (const side of SIDES) {
    const plot = document.querySelector(`#${side} .map`);
    plot.on("plotly_click", ({ points: [{ pointIndex: [i, start] }] }) => choose(side, start, i + 1));
    plot.on("plotly_hover", ({ points: [{ pointIndex: [i, start] }] }) => point(side, { l: start, n: i + 1 }));
    plot.on("plotly_unhover", () => point(side, null));
  }
  addEventListener("dragover", event => event.preventDefault());
  addEventListener("drop", event => {
    event.preventDefault();
    add([...event.dataTransfer.files]);
  });
  const files = document.getElementById("files");
  files.addEventListener("change", () => add([...files.files]));
}

// Frame, on the other side, the block under the mouse; null: none
function point(side, block) {
  const other = SIDES.find(each => each !== side), maps = Object.fromEntries(SIDES.map(each => [each, mapOf(each)]));
  const place = document.querySelector(`#${other} .map`), { layout } = place;
  const there = block && matched(block, maps[side].layers, maps[other].layers), { scale } = maps[other];
  const cell = there && { type: "rect", name: "hover", line: { color: "#fff", width: 3 }, x0: (there.l - 0.5) * scale,
    x1: (there.l + 0.5) * scale, y0: (there.n - 0.5) * scale, y1: (there.n + 0.5) * scale };
  const shapes = layout.shapes.filter(shape => shape.name !== "hover");
  Plotly.relayout(place, { shapes: cell ? [...shapes, cell] : shapes });
}

// A map of a file, if all that is drawn of it is there
function complete(map) {
  if (map.twin) complete(map.twin);
  const isWhole = ["regions", "share", "islands"].every(name => map.whole[name].length === DATA.thresholds.length);
  if (!isWhole || map.distance.length !== map.layers - 1) throw new Error("a part is missing");
  return map;
}

// Open files that `make figure-4 EXPORT=…` has written: their maps join the lists. The first two are shown side by
// side, a single one on the right
async function add(files) {
  const opened = [], wrong = [];
  for (const file of files) {
    try {
      const maps = Object.entries(JSON.parse(await file.text()));
      if (!maps.length) throw new Error("no map");
      for (const [, map] of maps) complete(map);
      for (const [name, map] of maps) {
        // another map of the same name, say of another's run, gets the file's name
        const label = name in DATA.maps && JSON.stringify(map) !== SENT[name] ? `${name}, ${file.name}` : name;
        if (!(label in DATA.maps)) for (const side of SIDES) FORM.elements[side].append(new Option(label));
        SENT[label] = JSON.stringify(map);
        DATA.maps[label] = prepared(map);
        opened.push(label);
        FORM.elements.l.max = FORM.elements.n.max = Math.max(FORM.elements.n.max, map.layers - 1);
      }
    } catch {
      wrong.push(`${file.name} is no map: write one by make figure-4 MODELS=… EXPORT=file.`);
    }
  }
  if (opened.length) {
    FORM.elements.twin.checked = false;
    [FORM.elements.right.value, FORM.elements.left.value] = opened.length > 1 ? [opened[1], opened[0]]
      : [opened[0], chosen("left")];
  }
  const message = opened.length ? [`Opened ${opened.join(" and ")}.`, ...wrong] : wrong;
  document.getElementById("said").textContent = message.join(" ");
  draw();
}

for (const map of Object.values(DATA.maps)) prepared(map);
begin();
