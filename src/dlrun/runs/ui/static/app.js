"use strict";
// Everything that comes from a run's folder reaches the page as text (textContent), never as HTML.
const $ = id => document.getElementById(id);
const POLL = 2000, ROW = 26, MARGIN = 20; // milliseconds; pixels; rows drawn beyond the visible ones
const COLOURS = ["#2563eb", "#ea580c", "#16a34a", "#9333ea", "#dc2626", "#0891b2", "#ca8a04", "#db2777", "#4d7c0f", "#6b7280"];
const isNumber = v => typeof v === "number";
const COLUMNS = [ // name, width in percent (0: the rest), kind, the value to sort by, the text
  ["run", 0, "word", r => r.name, r => r.name.replace(/^\d{4}-\d\d-\d\d\//, "")], // the day stands under started
  ["status", 7, "word", r => r.status, r => r.status],
  ["data", 8, "word", r => r.data, r => r.data ?? "-"],
  ["model", 9, "word", r => r.model, r => r.model ?? "-"],
  ["optimizer", 7, "word", r => r.optimizer, r => r.optimizer ?? "-"],
  ["seed", 4, "number", r => r.seed, r => r.seed ?? "-"],
  ["epoch", 6, "number", r => r.epoch, r => isNumber(r.epoch) ? `${+r.epoch.toFixed(1)}${r.planned ? "/" + r.planned : ""}` : "-"],
  ["best", 10, "number", r => r.best, r => metric(r.bestMetric, r.best)],
  ["test", 10, "number", r => r.test, r => metric(r.testMetric, r.test)],
  ["seconds", 7, "number", r => r.seconds, r => isNumber(r.left) ? `${clock(r.left)} left` : isNumber(r.seconds) ? r.seconds.toFixed(1) : "-"],
  ["started", 11, "number", r => r.started, r => r.started ? moment(r.started) : "-"],
];
const state = { runs: new Map(), version: 0, shown: [], chosen: new Map(), sort: "started", down: true, tab: "curves", sweeps: [], metrics: null, sweep: "", frame: "" };

function short(v) {
  if (!isNumber(v)) return "-";
  if (v === 0) return "0";
  if (Number.isInteger(v)) return v.toLocaleString("en");
  return Math.abs(v) < 1e-3 || Math.abs(v) >= 1e7 ? v.toExponential(2) : Math.abs(v) < 10 ? v.toFixed(4) : Math.abs(v) < 1000 ? v.toFixed(2) : v.toFixed(0);
}
function metric(name, value) { return isNumber(value) ? `${bare(name)} ${short(value)}` : "-"; }
function bare(name) { return String(name).replace(/^(val|train|test|step)\//, ""); }
function clock(seconds) {
  const s = Math.floor(seconds), two = n => String(n).padStart(2, "0");
  return s >= 3600 ? `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}` : `${Math.floor(s / 60)}:${two(s % 60)}`;
}
function moment(seconds) {
  const d = new Date(seconds * 1000), two = n => String(n).padStart(2, "0");
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${two(d.getHours())}:${two(d.getMinutes())}`;
}
function node(tag, parent, text, kind) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  if (parent) parent.append(made);
  return made;
}
async function ask(path, keys) {
  const query = (keys || []).map(key => `run=${encodeURIComponent(key)}`).join("&");
  const answer = await fetch(query ? `${path}?${query}` : path);
  if (!answer.ok) {
    const text = await answer.text();
    let why = text;
    try { why = JSON.parse(text).error || text; } catch { /* plain text */ }
    throw new Error(why);
  }
  return answer.json();
}

// the table: only the visible rows are in the page
function matches(run, text) {
  const words = text.trim().split(/\s+/).filter(Boolean);
  return words.every(word => {
    const bound = word.match(/^([\w/.]+)(<=|>=|<|>)(-?[\d.eE+-]+)$/);
    if (bound) {
      const value = valueOf(run, bound[1]), limit = Number(bound[3]);
      return isNumber(value) && { "<": value < limit, ">": value > limit, "<=": value <= limit, ">=": value >= limit }[bound[2]];
    }
    const [key, ...rest] = word.split("=");
    if (rest.length) {
      const value = String(valueOf(run, key) ?? "null");
      return rest.join("=").split(",").some(pattern => wild(pattern).test(value));
    }
    return [run.name, run.status, run.data, run.model, run.task, run.optimizer, run.experiment].some(v => String(v ?? "").toLowerCase().includes(word.toLowerCase()));
  });
}
function valueOf(run, key) { return key === "run" ? run.name : key in run && key !== "metrics" ? run[key] : (run.metrics || {})[key]; }
function wild(pattern) { return new RegExp("^" + pattern.replace(/[.+^${}()|[\]\\]/g, "\\$&").replace(/\*/g, ".*").replace(/\?/g, ".") + "$"); }

function arrange() {
  const text = $("filter").value, sweep = state.sweep;
  const value = (COLUMNS.find(c => c[0] === state.sort) || COLUMNS[0])[3], sign = state.down ? -1 : 1;
  const found = [...state.runs.values()].filter(r => (!sweep || r.sweep === sweep) && matches(r, text));
  found.sort((a, b) => {
    const x = value(a), y = value(b);
    if (x == null || y == null) return (x == null) - (y == null); // rows without a value come last
    return sign * (x < y ? -1 : x > y ? 1 : 0) || b.started - a.started;
  });
  state.shown = found;
  const running = found.filter(r => r.status === "running").length;
  $("counts").textContent = `${found.length.toLocaleString("en")} of ${state.total.toLocaleString("en")} runs` + (running ? `, ${running} running` : "");
  draw();
}
function scrolled() { // rows that stay are not drawn again: one may just be clicked
  const box = $("scroll"), first = Math.floor(box.scrollTop / ROW), last = Math.ceil((box.scrollTop + box.clientHeight) / ROW);
  if (Math.max(0, first) < state.first || Math.min(state.shown.length, last) > state.last) draw();
}
function draw() {
  const box = $("scroll"), body = document.querySelector("#runs tbody");
  const first = Math.max(0, Math.floor(box.scrollTop / ROW) - MARGIN);
  const last = Math.min(state.shown.length, Math.ceil((box.scrollTop + box.clientHeight) / ROW) + MARGIN);
  [state.first, state.last] = [first, last];
  const rows = [space(first)];
  for (const run of state.shown.slice(first, last)) {
    const row = node("tr"), chosen = state.chosen.get(run.id);
    row.dataset.id = run.id;
    row.classList.toggle("on", chosen !== undefined);
    const check = node("input", node("td", row));
    check.type = "checkbox";
    check.checked = chosen !== undefined;
    check.setAttribute("aria-label", `choose ${run.name}`);
    if (chosen !== undefined) check.style.accentColor = chosen;
    for (const [name, , kind, , text] of COLUMNS) {
      const shown = String(text(run)), cell = node("td", row, shown, kind);
      cell.title = name === "run" ? run.name : shown;
      if (name === "status") cell.classList.add(String(run.status).replace(/\W/g, ""));
    }
    rows.push(row);
  }
  rows.push(space(state.shown.length - last));
  body.replaceChildren(...rows);
}
function space(count) {
  const row = node("tr", null, undefined, "space"), cell = node("td", row);
  cell.colSpan = COLUMNS.length + 1;
  cell.style.height = `${Math.max(0, count) * ROW}px`;
  return row;
}
function head() {
  const row = document.querySelector("#runs thead tr");
  node("th", row).style.width = "32px";
  for (const [name, width, kind] of COLUMNS) {
    const cell = node("th", row, name, kind);
    if (width) cell.style.width = `${width}%`;
    cell.dataset.name = name;
    cell.addEventListener("click", () => {
      [state.sort, state.down] = [name, state.sort === name ? !state.down : kind === "number"];
      mark();
      arrange();
    });
  }
  mark();
}
function mark() {
  for (const cell of document.querySelectorAll("#runs th[data-name]")) {
    const name = cell.dataset.name;
    cell.textContent = name + (name === state.sort ? (state.down ? " ▾" : " ▴") : "");
    cell.setAttribute("aria-sort", name !== state.sort ? "none" : state.down ? "descending" : "ascending");
  }
}
function choose(key) {
  if (state.chosen.has(key)) state.chosen.delete(key);
  else {
    const taken = new Set(state.chosen.values());
    state.chosen.set(key, COLOURS.find(c => !taken.has(c)) || COLOURS[state.chosen.size % COLOURS.length]);
  }
  draw();
  show();
}

// the panel below: what it shows of the chosen runs
let turn = 0; // a newer choice ends the drawing of an older one
async function show() {
  const mine = ++turn, isOld = () => mine !== turn;
  const keys = [...state.chosen.keys()], tab = state.tab;
  location.replace("#" + [tab, ...keys].join(","));
  document.querySelector('[data-tab="sweep"]').hidden = !state.sweep;
  for (const button of document.querySelectorAll("#tabs [data-tab]")) button.classList.toggle("on", button.dataset.tab === tab);
  for (const name of ["curves", "configs", "images", "logs", "sweep"]) $(name).hidden = name !== tab || (!keys.length && tab !== "sweep");
  $("chosen").textContent = keys.length ? `${keys.length} chosen` : "";
  $("clear").hidden = !keys.length;
  $("hint").hidden = keys.length > 0 || tab === "sweep";
  if (tab === "sweep") return frame();
  if (!keys.length) return;
  try {
    const found = await ask(`/api/${tab}`, keys);
    if (!isOld()) await { curves, configs, images, logs }[tab](found, isOld);
  } catch (error) {
    $(tab).querySelector(".error")?.remove();
    $(tab).prepend(node("p", null, error.message, "error"));
  }
}
const nameOf = key => state.runs.get(key)?.name ?? key;

let plotly;
function load() {
  return plotly ||= new Promise((done, fail) => {
    const script = document.createElement("script");
    script.src = "/static/plotly.min.js";
    script.onload = () => done(window.Plotly);
    script.onerror = () => fail(new Error("plotly.min.js could not be loaded"));
    document.head.append(script);
  });
}
const plain = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"); // Plotly reads some HTML
function smooth(values, weight) { // an exponential mean without its start at zero, as TensorBoard has it
  let last = 0, count = 0;
  return values.map(v => {
    if (!isNumber(v)) return v;
    last = weight * last + (1 - weight) * v;
    return last / (1 - weight ** ++count);
  });
}
async function curves(found, isOld) {
  const Plotly = await load();
  if (isOld()) return;
  const goals = Object.values(found).map(f => bare(f.goal || ""));
  const keys = Object.values(found).flatMap(run => [...Object.keys(run.epochs), ...Object.keys(run.steps)]);
  const names = [...new Set(keys.filter(key => /^(val|train|step)\//.test(key)).map(bare))];
  const ranked = names.sort((a, b) => goals.includes(b) - goals.includes(a) || (b === "loss") - (a === "loss"));
  const on = ranked.filter(name => state.metrics?.has(name)), drawn = on.length ? on : ranked.slice(0, 2);
  chips(ranked, drawn);
  legend(found);
  const old = new Map([...$("panels").children].map(panel => [panel.dataset.name, panel]));
  const panels = drawn.map(name => old.get(name) || node("div", null, undefined, "panel"));
  for (const [name, panel] of old) if (!drawn.includes(name)) Plotly.purge(panel);
  $("panels").replaceChildren(...panels); // all at once, so that each is drawn in its final size
  for (const [i, name] of drawn.entries()) {
    if (isOld()) return;
    panels[i].dataset.name = name;
    const lines = traces(found, name);
    await Plotly.react(panels[i], lines, layout(name, $("log").checked && lines.some(line => line.y.some(v => v > 0))), { displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] });
    Plotly.Plots.resize(panels[i]);
  }
}
function chips(names, drawn) {
  $("metrics").replaceChildren(...names.map(name => {
    const chip = node("button", null, name, drawn.includes(name) ? "on" : "");
    chip.type = "button";
    chip.addEventListener("click", () => {
      state.metrics = new Set(drawn);
      if (!state.metrics.delete(name)) state.metrics.add(name);
      show();
    });
    return chip;
  }));
}
function traces(found, name) {
  const weight = Number($("smoothing").value), axis = $("axis").value, lines = [];
  for (const [key, run] of Object.entries(found)) {
    const colour = state.chosen.get(key), label = plain(nameOf(key));
    const splits = [["val", run.epochs, `val/${name}`, "solid"]];
    if ($("train").checked || !run.epochs[`val/${name}`]) {
      const isEarly = (run.epochs.epoch || []).length < 2 && run.steps[`step/${name}`];
      splits.push(["train", isEarly ? run.steps : run.epochs, isEarly ? `step/${name}` : `train/${name}`, "dot"]);
    }
    for (const [split, rows, column, dash] of splits) {
      const x = rows[axis], y = rows[column];
      if (!x || !y) continue;
      const few = y.length < 30 ? "lines+markers" : "lines";
      const line = { x, y, mode: few, line: { color: colour, width: 1.8, dash }, marker: { size: 4 }, name: `${label} ${split}`, connectgaps: true, hovertemplate: `%{y:.5g} <extra>${label} ${split}</extra>` };
      if (weight) {
        lines.push({ ...line, opacity: 0.25, hoverinfo: "skip", hovertemplate: undefined, mode: "lines" });
        lines.push({ ...line, y: smooth(y, weight), mode: "lines" });
      } else lines.push(line);
    }
  }
  return lines;
}
function layout(name, isLog) {
  const style = getComputedStyle(document.documentElement), ink = style.getPropertyValue("--ink"), line = style.getPropertyValue("--line");
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  return {
    title: { text: plain(name), font: { size: 13 }, x: 0.02, xanchor: "left", y: 0.97 }, showlegend: false, hovermode: "x", uirevision: name + isLog + $("axis").value,
    margin: { l: 50, r: 12, t: 34, b: 38 }, font: { color: ink, size: 11, family: "system-ui, sans-serif" }, paper_bgcolor: "transparent", plot_bgcolor: "transparent",
    xaxis: { ...axis, title: { text: $("axis").value, standoff: 6 } }, yaxis: { ...axis, type: isLog ? "log" : "linear" },
  };
}
function legend(found) {
  $("curves").querySelector(".legend")?.remove();
  const box = node("div", $("curves"), undefined, "legend");
  for (const key of Object.keys(found)) {
    const entry = node("span", box);
    node("i", entry).style.background = state.chosen.get(key);
    entry.append(nameOf(key));
  }
  node("span", box, "line: val, dots: train");
}
function configs(found) {
  const several = found.different, rows = Object.entries(several || found.all), table = node("table");
  const top = node("tr", node("thead", table));
  node("th", top, several ? "differs" : "key");
  for (const key of found.runs) {
    const cell = node("th", top);
    node("span", cell, undefined, "dot").style.background = state.chosen.get(key);
    cell.append(nameOf(key));
  }
  const body = node("tbody", table);
  for (const [key, values] of rows) {
    const row = node("tr", body);
    node("td", row, key);
    for (const value of values) node("td", row, value);
  }
  $("configs").replaceChildren(several && !rows.length ? node("p", null, "the configs are the same") : table);
}
function images(found) {
  const boxes = Object.entries(found).map(([key, files]) => {
    const box = node("div", null, undefined, "run-images");
    const name = node("h3", box);
    node("span", name, undefined, "dot").style.background = state.chosen.get(key);
    name.append(nameOf(key));
    const grid = node("div", box, undefined, "grid");
    if (!files.length) node("p", grid, "no images");
    for (const file of files) {
      const figure = node("figure", grid), link = node("a", figure), image = node("img", link);
      const address = `/image/${key}/${file.path.split("/").map(encodeURIComponent).join("/")}?t=${file.changed}`;
      Object.assign(link, { href: address, target: "_blank", rel: "noopener" });
      Object.assign(image, { loading: "lazy", alt: file.path, src: address });
      image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth < 200));
      node("figcaption", figure, file.path);
    }
    return box;
  });
  $("images").replaceChildren(...boxes);
}
function logs(found) {
  $("logs").replaceChildren(...Object.entries(found).flatMap(([key, text]) => [node("h3", null, nameOf(key)), node("pre", null, text)]));
}
function frame() { // a page of its own, with parallel coordinates, made anew when a job ends
  const jobs = [...state.runs.values()].filter(r => r.sweep === state.sweep).map(r => `${r.status}${r.best}`).join();
  const wanted = state.sweep + jobs;
  if (!state.sweep || state.frame === wanted) return;
  state.frame = wanted;
  const made = node("iframe");
  Object.assign(made, { src: `/sweep/${state.sweep}`, title: "sweep" });
  made.setAttribute("sandbox", "allow-scripts");
  $("sweep").replaceChildren(made);
}

// following the files
async function poll() {
  let again = POLL;
  try {
    if (!document.hidden) {
      const found = await ask(`/api/runs?since=${state.version}`);
      $("live").className = "";
      if (found.runs.length || found.gone.length || !state.version) {
        for (const run of found.runs) state.runs.set(run.id, run);
        for (const key of found.gone) { state.runs.delete(key); state.chosen.delete(key); }
        state.total = found.total;
        $("base").textContent = found.base;
        list(found.sweeps);
        arrange();
        if (found.runs.some(r => state.chosen.has(r.id)) || state.tab === "sweep") show();
      }
      state.version = found.version;
      if (found.more) again = 0;
      else setTimeout(() => load().catch(() => {}), 100); // takes a while, so do it before the first run is chosen
    }
  } catch {
    $("live").className = "lost"; // the command was ended, or the machine sleeps
  }
  setTimeout(poll, again);
}
function list(sweeps) {
  if (sweeps.map(s => s.id).join() === state.sweeps.join()) return;
  state.sweeps = sweeps.map(s => s.id);
  const all = node("option", null, "all runs");
  all.value = "";
  $("sweeps").replaceChildren(all, ...sweeps.map(s => Object.assign(node("option", null, `sweep ${s.name}`), { value: s.id })));
  $("sweeps").value = state.sweep;
}
function start() {
  const [tab, ...keys] = location.hash.slice(1).split(",");
  if (["curves", "configs", "images", "logs"].includes(tab)) state.tab = tab;
  keys.filter(Boolean).forEach((key, i) => state.chosen.set(key, COLOURS[i % COLOURS.length]));
  state.total = 0;
  head();
  $("scroll").addEventListener("scroll", scrolled, { passive: true });
  addEventListener("resize", () => {
    draw();
    document.querySelectorAll(".panel").forEach(panel => window.Plotly?.Plots.resize(panel));
  });
  $("filter").addEventListener("input", () => { $("scroll").scrollTop = 0; arrange(); });
  $("sweeps").addEventListener("change", event => { state.sweep = event.target.value; state.tab = state.sweep ? "sweep" : "curves"; arrange(); show(); });
  document.querySelector("#runs tbody").addEventListener("click", event => {
    const row = event.target.closest("tr[data-id]");
    if (row) choose(row.dataset.id);
  });
  for (const button of document.querySelectorAll("#tabs [data-tab]")) button.addEventListener("click", () => { state.tab = button.dataset.tab; show(); });
  $("clear").addEventListener("click", () => { state.chosen.clear(); draw(); show(); });
  $("controls").addEventListener("submit", event => event.preventDefault());
  for (const id of ["smoothing", "log", "train", "axis"]) $(id).addEventListener("input", () => { document.querySelector("#controls output").textContent = $("smoothing").value; show(); });
  $("split").addEventListener("pointerdown", event => {
    const move = e => { $("scroll").style.height = `${Math.max(80, e.clientY - $("scroll").getBoundingClientRect().top)}px`; draw(); };
    event.target.setPointerCapture(event.pointerId);
    event.target.addEventListener("pointermove", move);
    event.target.addEventListener("pointerup", () => event.target.removeEventListener("pointermove", move), { once: true });
  });
  show();
  poll();
}
start();
