// The list of questions. What models and users wrote is only ever set as text.
"use strict";

const SHOWN = 20;
const FOLD = 900;
const head = JSON.parse(document.getElementById("head").textContent);
const $ = (id) => document.getElementById(id);

const state = { left: head.main[0], right: head.main[1], show: "all", category: "", search: "", page: 0 };
let rows = [];
let found = [];

// Elements -----------------------------------------------------------------------------------------

function element(name, given = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (key === "class") made.className = value;
    else if (key === "text") made.textContent = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// Text of others, with what was searched for marked; its direction is its own.
function written(name, text, given = {}) {
  const made = element(name, { dir: "auto", ...given });
  const words = state.search;
  if (!words) {
    made.textContent = text;
    return made;
  }
  const low = text.toLowerCase();
  let at = 0;
  // Lower case may be longer than what it was made of: then places don't match, and none is marked.
  for (let next = low.length === text.length ? low.indexOf(words) : -1; next >= 0; next = low.indexOf(words, at)) {
    made.append(text.slice(at, next), element("mark", { text: text.slice(next, next + words.length) }));
    at = next + words.length;
  }
  made.append(text.slice(at));
  return made;
}

// What became of an answer -------------------------------------------------------------------------

const CHANGES = {
  "correct>wrong": ["broken", "bad"],
  "correct>idk": ["withheld", "bad"],
  "wrong>correct": ["mended", "good"],
  "wrong>idk": ["admitted", "good"],
  "idk>correct": ["found", "good"],
  "idk>wrong": ["lost", "bad"],
};

const sides = (row) => [row.answers[state.left], row.answers[state.right]];
const change = (row) => {
  const [left, right] = sides(row);
  return CHANGES[`${left?.label}>${right?.label}`] ?? null;
};
const judged = (answer, label) => answer?.verdicts?.some((verdict) => verdict[1] === label) ?? false;
const unread = (answer) => answer?.verdicts?.some((verdict) => !verdict[1]) ?? false;

const SHOWS = {
  all: () => true,
  changed: (row) => {
    const [left, right] = sides(row);
    return !!left && !!right && left.text !== right.text;
  },
  broken: (row) => change(row)?.[0] === "broken",
  withheld: (row) => change(row)?.[0] === "withheld",
  mended: (row) => change(row)?.[0] === "mended",
  admitted: (row) => change(row)?.[0] === "admitted",
  "more honest": (row) => judged(sides(row)[0], "dishonest") && judged(sides(row)[1], "honest"),
  "less honest": (row) => judged(sides(row)[0], "honest") && judged(sides(row)[1], "dishonest"),
  rewritten: (row) => sides(row)[1]?.outcome === "rewritten",
  "draft kept": (row) => sides(row)[1]?.outcome === "draft_kept",
  "fell back": (row) => sides(row)[1]?.outcome === "draft_fallback",
  unscored: (row) => sides(row).some((answer) => answer && !answer.error && (!answer.label || unread(answer))),
  errors: (row) => sides(row).some((answer) => answer?.error),
};

// Finding ------------------------------------------------------------------------------------------

function haystack(row) {
  if (row.haystack === undefined) {
    const parts = [row.id, row.question, ...(row.accepted ?? []), ...(row.before ?? []).flat()];
    for (const answer of row.answers) {
      if (!answer) continue;
      parts.push(answer.text ?? "", answer.error ?? "", answer.draft ?? "", ...(answer.doubts ?? []).flat());
      for (const verdict of answer.verdicts ?? []) parts.push(...verdict);
    }
    row.haystack = parts.join("\n").toLowerCase();
  }
  return row.haystack;
}

function find() {
  const { category, search } = state;
  const some = rows.filter(
    (row) => (!category || row.category === category) && (!search || haystack(row).includes(search)),
  );
  const counts = {};
  for (const name of Object.keys(SHOWS)) counts[name] = 0;
  found = [];
  for (const row of some) {
    for (const [name, shows] of Object.entries(SHOWS)) {
      if (!shows(row)) continue;
      counts[name] += 1;
      if (name === state.show) found.push(row);
    }
  }
  for (const button of $("shows").children) {
    const count = counts[button.dataset.show];
    button.lastChild.textContent = count.toLocaleString("en");
    button.setAttribute("aria-pressed", String(button.dataset.show === state.show));
    button.hidden = !count && !everCounted[button.dataset.show] && button.dataset.show !== state.show;
  }
  state.page = Math.min(state.page, Math.max(0, Math.ceil(found.length / SHOWN) - 1));
  render();
}

// Chips that no question ever falls under, for any pair, are left out.
const everCounted = {};

function countEver() {
  for (const name of Object.keys(SHOWS)) everCounted[name] = rows.some(SHOWS[name]);
}

// Showing ------------------------------------------------------------------------------------------

function render() {
  const start = state.page * SHOWN;
  const page = found.slice(start, start + SHOWN);
  $("questions-list").replaceChildren(...page.map(question));
  const total = found.length.toLocaleString("en");
  $("count").textContent = found.length ? `${start + 1}–${start + page.length} of ${total}` : "No question is like that.";
  for (const end of ["", "-below"]) {
    $(`previous${end}`).disabled = state.page === 0;
    $(`next${end}`).disabled = start + SHOWN >= found.length;
  }
  remember();
}

function question(row) {
  const became = change(row);
  const about = element("p", { class: "about" });
  if (became) about.append(element("span", { class: `change ${became[1]}`, text: became[0] }));
  about.append(written("span", row.category.replaceAll("_", " ")));
  if (row.answerable !== undefined) about.append(row.answerable ? "can be answered" : "can’t be answered");
  if (row.accepted) about.append(written("span", `accepted: ${row.accepted.join(" · ")}`));
  if (row.wrong) about.append(written("span", `known wrong: ${row.wrong.join(" · ")}`));
  about.append(written("span", row.id));
  const earlier = (row.before ?? []).map(([role, text]) => written("p", `${role}: ${text}`, { class: "earlier" }));
  const header = element("header", {}, ...earlier, written("p", row.question, { class: "asked" }), about);
  const both = state.left === state.right ? [state.left] : [state.left, state.right];
  const answers = element("div", { class: "sides" }, ...both.map((place) => side(place, row.answers[place])));
  return element("li", { class: "question" }, header, answers, duels(row));
}

function side(place, answer) {
  const named = element("p", { class: "named" }, element("strong", {}, element("i", { class: `key arm${place % 8}` }), head.arms[place]));
  const made = element("section", { class: "side", "aria-label": head.arms[place] }, named);
  if (!answer) {
    made.append(element("p", { class: "none", text: "Not asked yet." }));
    return made;
  }
  named.append(badge(answer));
  if (answer.outcome) {
    const why = answer.reason ? ` (${answer.reason})` : "";
    named.append(written("span", answer.outcome.replaceAll("_", " ") + why));
  }
  if (answer.confidence !== undefined) named.append(`${Math.round(answer.confidence * 100)} % sure`);
  made.append(answer.error ? written("p", answer.error, { class: "none" }) : said(answer.text));
  made.append(...extras(answer));
  return made;
}

function badge(answer) {
  const label = answer.error ? "error" : (answer.label ?? "unscored");
  const shown = label === "idk" ? "declines" : label;
  const made = element("span", { class: `label ${label}`, text: shown });
  if (answer.words) made.title = `by words alone: ${answer.words}`;
  return made;
}

function said(text) {
  if (!text) return element("p", { class: "none", text: "An empty answer." });
  const made = written("div", text, { class: "said" });
  if (text.length <= FOLD) return made;
  made.classList.add("folded");
  const more = element("button", { type: "button", class: "more", text: "Show all" });
  more.addEventListener("click", () => {
    more.textContent = made.classList.toggle("folded") ? "Show all" : "Show less";
  });
  return element("div", {}, made, more);
}

function extras(answer) {
  const made = [];
  if (answer.doubts) {
    const items = answer.doubts.map(([kind, statement]) =>
      element("li", {}, element("span", { class: "chip", text: kind.replaceAll("_", " ") }), written("span", statement)),
    );
    made.push(element("ul", { class: "doubts" }, ...items));
  }
  if (answer.verdicts) made.push(element("ul", { class: "verdicts" }, ...answer.verdicts.map(verdict)));
  if (answer.draft) {
    made.push(element("details", {}, element("summary", { text: "Draft" }), written("div", answer.draft, { class: "said" })));
  }
  const costs = [
    `${answer.calls} ${answer.calls === 1 ? "call" : "calls"}`,
    answer.tokens === undefined ? "" : `${answer.tokens.toLocaleString("en")} tokens`,
    `${answer.seconds.toFixed(2)} s`,
    answer.retries ? `${answer.retries} retried` : "",
  ];
  made.push(element("p", { class: "costs", text: costs.filter(Boolean).join(" · ") }));
  return made;
}

function verdict([judge, label, reason]) {
  const kind = /^[a-z]+$/.test(label) ? label : "";
  const shown = element("span", { class: `label ${label ? kind : "unscored"}`, text: label || "unscored" });
  return element("li", {}, `${judge} `, shown, " ", written("span", reason));
}

function duels(row) {
  const pair = [head.arms[state.left], head.arms[state.right]];
  const some = (row.duels ?? []).filter(([, first, second]) => pair.includes(first) && pair.includes(second));
  if (!some.length) return null;
  const items = some.map(([judge, first, second, winner, reason]) =>
    element("li", {}, `${judge}, ${first} first: `, element("span", { class: winner ? "label" : "label unscored", text: winner || "unscored" }), " ", written("span", reason)),
  );
  return element("ul", { class: "duels" }, ...items);
}

// Controls -----------------------------------------------------------------------------------------

function turn(by) {
  const last = Math.ceil(found.length / SHOWN) - 1;
  const page = Math.max(0, Math.min(last, state.page + by));
  if (page === state.page) return;
  state.page = page;
  render();
  $("questions-title").scrollIntoView({ block: "start" });
}

function choose(changes) {
  Object.assign(state, changes, { page: 0 });
  find();
}

function fillControls() {
  const categories = [...new Set(rows.map((row) => row.category))].sort();
  $("category").append(element("option", { value: "", text: "all" }));
  for (const name of categories) $("category").append(element("option", { value: name, text: name.replaceAll("_", " ") }));
  for (const side of ["left", "right"]) {
    head.arms.forEach((name, place) => $(side).append(element("option", { value: String(place), text: name })));
  }
  for (const name of Object.keys(SHOWS)) {
    const button = element("button", { type: "button", "data-show": name }, name, element("span"));
    button.addEventListener("click", () => choose({ show: name }));
    $("shows").append(button);
  }
  $("category").value = state.category;
  $("left").value = String(state.left);
  $("right").value = String(state.right);
  $("search").value = state.search;
}

function listen() {
  let waiting = 0;
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => choose({ search: $("search").value.trim().toLowerCase() }), 120);
  });
  $("category").addEventListener("change", () => choose({ category: $("category").value }));
  for (const side of ["left", "right"]) {
    $(side).addEventListener("change", () => choose({ [side]: Number($(side).value) }));
  }
  for (const end of ["", "-below"]) {
    $(`previous${end}`).addEventListener("click", () => turn(-1));
    $(`next${end}`).addEventListener("click", () => turn(1));
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea, .wide")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.key === "/") {
      event.preventDefault();
      $("search").focus();
    } else if (event.key === "ArrowRight") turn(1);
    else if (event.key === "ArrowLeft") turn(-1);
  });
}

// The address holds what is shown, so that a finding can be passed on.
function remember() {
  const told = new URLSearchParams();
  if (state.left !== head.main[0] || state.right !== head.main[1]) told.set("arms", `${state.left}-${state.right}`);
  if (state.show !== "all") told.set("show", state.show);
  if (state.category) told.set("category", state.category);
  if (state.search) told.set("search", state.search);
  if (state.page) told.set("page", String(state.page + 1));
  try {
    history.replaceState(null, "", told.size ? `#${told}` : location.pathname + location.search);
  } catch {
    // Where the address may not be changed, the list works all the same.
  }
}

function recall() {
  const told = new URLSearchParams(location.hash.slice(1));
  const arms = (told.get("arms") ?? "").split("-").map(Number);
  if (arms.length === 2 && arms.every((place) => place in head.arms)) [state.left, state.right] = arms;
  if (Object.hasOwn(SHOWS, told.get("show") ?? "")) state.show = told.get("show");
  state.category = told.get("category") ?? "";
  state.search = told.get("search") ?? "";
  state.page = Math.max(0, (Number(told.get("page")) || 1) - 1);
}

function theme() {
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (isDark ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
}

// Start --------------------------------------------------------------------------------------------

async function read(source) {
  if (!source.dataset.packed) return JSON.parse(source.textContent);
  const packed = Uint8Array.from(atob(source.textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

async function start() {
  $("theme").addEventListener("click", theme);
  if (head.live) return;
  try {
    rows = await read($("questions"));
  } catch {
    $("broken").hidden = false;
    return;
  }
  $("questions").remove();
  recall();
  fillControls();
  countEver();
  listen();
  $("list").hidden = false;
  find();
}

start().finally(() => document.body.setAttribute("data-ready", ""));
