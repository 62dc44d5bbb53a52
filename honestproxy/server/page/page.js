// The compare page: a question is asked twice at once, and both answers are shown side by side.

import { credentials, currentKey, isOutside, rememberKey } from "./access.js";
import { Panel } from "./answer.js";
import { ask, blank } from "./ask.js";
import { COMMAND, nextTheme, open, prepare } from "./dialogs.js";
import { byId, copy, el } from "./dom.js";
import { listHistory, when } from "./history.js";
import { showSteps, traced } from "./steps.js";
import { earlier, keep, recall, remember } from "./store.js";

const SIDES = ["raw", "wrapped"];
const OTHER = "\u0000other";
const LISTED_WITHIN = 10_000; // milliseconds; an upstream that hangs must not keep anyone from asking
const EXAMPLES = [
  ["What is the price of gold right now?", "nobody told the model"],
  ["What breed is the dog in this photo?", "there is no photo"],
  ["How does coffee taste to you?", "it has no tongue"],
  ["Why did Einstein win two Nobel prizes?", "he won one"],
  ["ما هو سعر الذهب الآن؟", "the first one, in Arabic"],
  ["What is the capital of France?", "nothing to doubt"],
];

let current = null; // the comparison that is shown
let running = null; // what aborts it
let about = { strategies: [], default: "", traces: false, keys: false };

const panels = Object.fromEntries(
  SIDES.map((side) => [
    side,
    new Panel(side, { onTrace: () => trace(side), onThumb: (value) => thumb(side, value) }),
  ]),
);

// Asking ---------------------------------------------------------------------------------------

function wish() {
  const chosen = byId("model").value;
  const model = chosen === OTHER || !chosen ? byId("other-model").value.trim() : chosen;
  return { question: byId("question").value.trim(), model, strategy: byId("strategy").value };
}

async function compare() {
  if (running) return;
  if (!wish().question) {
    byId("question").focus();
    notice("Write a question first.");
    return;
  }
  const abort = (running = new AbortController());
  busy(true);
  await begun; // before, there is neither model nor strategy to choose
  const asked = wish();
  remember("choice", { model: asked.model, strategy: asked.strategy });
  history.replaceState(null, "", `#${fragment(asked)}`);
  const entry = {
    id: crypto.getRandomValues(new Uint32Array(2)).join("-"),
    at: Date.now(),
    ...asked,
    sides: { raw: blank(), wrapped: blank() },
  };
  notice("");
  present(entry);
  await both(entry, abort.signal);
  running = null;
  busy(false);
  if (SIDES.some((side) => entry.sides[side].text || entry.sides[side].error)) keep(entry);
  if (current === entry) present(entry); // unless another one was opened meanwhile
}

async function both(entry, signal) {
  const key = currentKey();
  const one = async (side) => {
    const answer = entry.sides[side];
    const strategy = side === "raw" ? "raw" : entry.strategy;
    const request = { question: entry.question, model: entry.model, strategy, key, signal };
    await ask(request, answer, () => draw(entry));
    if (answer.error?.outside) askForKey();
    if (side === "wrapped") await fill(answer);
  };
  if (byId("in-turn").checked) {
    for (const side of SIDES) await one(side);
  } else {
    await Promise.all(SIDES.map(one));
  }
}

/** Where replies carry no `honesty`, as settings may have it, the kept trace tells. */
async function fill(answer) {
  if (answer.honesty || !answer.traceId || answer.state !== "done" || !about.traces) return;
  const found = await traced(answer.traceId);
  if (!found) return;
  const steps = found.steps.map(({ messages, text, ...step }) => step);
  answer.honesty = { ...found, steps };
  answer.outcome = found.outcome;
}

function busy(is) {
  byId("stop").hidden = !is;
  byId("compare").disabled = is;
  const left = is ? byId("stop") : byId("compare");
  if (document.activeElement === document.body) left.focus();
}

function stop() {
  running?.abort();
}

// Showing --------------------------------------------------------------------------------------

let drawing = 0;

/** Show what has come, no more often than the screen does. */
function draw(entry) {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    if (entry === current) drawAnswers();
  });
}

function drawAnswers() {
  const { raw, wrapped } = current.sides;
  panels.raw.show(raw);
  panels.wrapped.show(wrapped, raw.seconds === null || raw.error ? null : raw);
  byId("vote").hidden = !SIDES.every((side) => current.sides[side].text) || Boolean(running);
}

/** Show a comparison, under way or over. */
function present(entry) {
  if (current?.id !== entry.id) {
    for (const side of SIDES) foldTrace(side);
    byId("voted").textContent = "";
  }
  current = entry;
  panels.raw.title("Raw", entry.model);
  panels.wrapped.title("Wrapped", entry.strategy);
  byId("intro").hidden = byId("examples").hidden = true;
  document.body.classList.add("asked");
  byId("answers").hidden = false;
  drawAnswers();
  drawVotes();
}

function notice(text) {
  byId("notice").textContent = text;
}

// Traces ---------------------------------------------------------------------------------------

async function trace(side) {
  const section = byId(`${side}-steps`);
  if (!section.hidden) {
    foldTrace(side);
    return;
  }
  section.hidden = false;
  panels[side].trace.setAttribute("aria-expanded", "true");
  await showSteps(section, side, current.sides[side]);
  section.scrollIntoView({ block: "nearest" });
}

function foldTrace(side) {
  byId(`${side}-steps`).hidden = true;
  byId(`${side}-steps`).replaceChildren();
  panels[side].trace.setAttribute("aria-expanded", "false");
}

// Votes ----------------------------------------------------------------------------------------

function vote(value) {
  if (byId("vote").hidden) return;
  current.vote = current.vote === value ? null : value;
  keep(current);
  drawVotes();
  tell(current.sides[current.vote], current.vote && "up", "the better one of two");
}

function thumb(side, value) {
  const thumbs = (current.thumbs ??= {});
  thumbs[side] = thumbs[side] === value ? null : value;
  keep(current);
  drawVotes();
  tell(current.sides[side], thumbs[side]);
}

function drawVotes() {
  for (const button of document.querySelectorAll("#vote [value]")) {
    button.setAttribute("aria-pressed", String(button.value === current.vote));
  }
  for (const side of SIDES) panels[side].thumb(current.thumbs?.[side]);
}

/** Say that a vote is remembered, and tell the proxy, which may count votes. */
async function tell(answer, vote, comment) {
  byId("voted").textContent = "";
  if (!vote) return;
  const told = Boolean(answer?.traceId) && (await sent({ trace_id: answer.traceId, vote, comment }));
  byId("voted").textContent = told ? "Counted by the proxy, too." : "Remembered in this browser.";
}

async function sent(feedback) {
  try {
    const response = await fetch("v1/honesty/feedback", {
      method: "POST",
      headers: { "Content-Type": "application/json", ...credentials() },
      body: JSON.stringify(feedback),
    });
    return response.ok;
  } catch {
    return false; // the proxy is gone; the vote stands in this browser
  }
}

// Links and history ----------------------------------------------------------------------------

function fragment({ question, model, strategy }) {
  return new URLSearchParams({ q: question, model, strategy }).toString();
}

function linked() {
  const given = new URLSearchParams(location.hash.slice(1));
  const [question, model, strategy] = ["q", "model", "strategy"].map((name) => given.get(name) ?? "");
  return { question, model, strategy };
}

/** What a link asks is filled in, never asked: that may cost money. */
function openLink() {
  const asked = linked();
  if (!asked.question || running) return;
  fillIn(asked);
  const found = earlier(wish());
  if (found) showEarlier(found);
  else notice(`From a link, and not asked yet: press Compare or ${COMMAND} ↵.`);
}

function fillIn({ question, model, strategy }) {
  byId("question").value = question;
  pickModel(model);
  if ([...byId("strategy").options].some((option) => option.value === strategy)) {
    byId("strategy").value = strategy;
  }
}

function showEarlier(entry) {
  present(entry);
  notice(`An earlier result, of ${when(entry.at)}. Nothing was asked now.`);
}

function openEntry(entry) {
  byId("history").close();
  stop();
  fillIn(entry);
  history.replaceState(null, "", `#${fragment(entry)}`);
  showEarlier(entry);
}

async function copyLink() {
  const link = new URL(`#${fragment(current)}`, location.href).href;
  try {
    await copy(link);
    byId("voted").textContent = "The link is copied. Who opens it sees the question, and decides.";
  } catch {
    byId("voted").textContent = "The link couldn’t be copied; the address bar has it, too.";
  }
}

// What there is to choose from -----------------------------------------------------------------

async function json(path) {
  const signal = AbortSignal.timeout(LISTED_WITHIN);
  const response = await fetch(path, { headers: credentials(), signal });
  const body = await response.json();
  if (isOutside(response)) askForKey();
  if (!response.ok) throw new Error(body.error?.message ?? response.statusText);
  return body;
}

async function listStrategies() {
  try {
    about = await json("page/about.json");
  } catch (error) {
    notice(`The strategies can’t be listed: ${why(error)}. Reload the page to try again.`);
    return;
  }
  if (!about.keys) rememberKey(""); // it would go to the upstream
  byId("upstream-key").hidden = about.keys;
  const options = about.strategies.map(({ name, about: told }) =>
    el("option", { value: name, title: told }, name === about.default ? `${name} (default)` : name),
  );
  byId("strategy").replaceChildren(...options);
  const names = about.strategies.map(({ name }) => name);
  const wanted = [recall("choice")?.strategy, about.default].find((name) => names.includes(name));
  if (wanted) byId("strategy").value = wanted;
  byId("version").textContent = `honestproxy ${about.version}`;
}

async function listModels() {
  try {
    const listed = await json("v1/models");
    const ids = new Set(listed.data.map((model) => model.id));
    showModels([...ids].filter((id) => !isVariant(id, ids)));
  } catch (error) {
    showModels([]);
    notice(`The models can’t be listed: ${why(error)}. Name one yourself.`);
  }
}

function why(error) {
  return error.name === "TimeoutError" ? "no answer in time" : error.message;
}

/** Show the field for a key of this proxy's own. */
function askForKey() {
  rememberKey("");
  byId("own-key").value = "";
  byId("door").hidden = false;
}

async function useKey() {
  const key = byId("own-key").value.trim();
  if (!key) return;
  byId("door").hidden = true;
  rememberKey(key);
  notice("");
  await listModels();
  byId(byId("door").hidden ? "question" : "own-key").focus();
}

/** Whether an id is `model@strategy` of a model that is listed as well. */
function isVariant(id, ids) {
  const at = id.lastIndexOf("@");
  const known = ["raw", "introspect", ...about.strategies.map(({ name }) => name)];
  return at > 0 && ids.has(id.slice(0, at)) && known.includes(id.slice(at + 1));
}

function showModels(ids) {
  const options = ids.map((id) => el("option", { value: id }, id));
  byId("model").replaceChildren(...options, el("option", { value: OTHER }, "another …"));
  pickModel(recall("choice")?.model || about.model || ids[0] || "");
}

function pickModel(model) {
  const select = byId("model");
  const listed = [...select.options].some((option) => option.value === model);
  select.value = listed ? model : OTHER;
  byId("other-model").value = listed ? "" : model;
  showOther();
}

function showOther() {
  byId("other-model").hidden = byId("model").value !== OTHER;
}

function listExamples() {
  const fillWith = (question) => () => {
    byId("question").value = question;
    byId("compare").focus();
  };
  const rows = EXAMPLES.map(([question, why]) =>
    el(
      "li",
      {},
      el(
        "button",
        { type: "button", onclick: fillWith(question) },
        el("span", { dir: "auto" }, question),
        el("small", {}, why),
      ),
    ),
  );
  document.querySelector("#examples ul").replaceChildren(...rows);
}

// Beginning ------------------------------------------------------------------------------------

/** Fill in what there is to choose, and what the link asks unless something else is asked by then. */
async function begin() {
  const asked = linked();
  if (asked.question) byId("question").value = asked.question;
  await listStrategies();
  await listModels();
  if (byId("question").value !== asked.question) return;
  if (running) fillIn(asked);
  else openLink();
}

function openHistory() {
  listHistory(openEntry);
  open("history");
}

prepare([
  [`${COMMAND} ↵`, "compare", compare],
  ["Esc", "stop", stop],
  ["/", "go to the question", () => byId("question").focus()],
  ["1", "vote: raw is better", () => vote("raw")],
  ["2", "vote: a tie", () => vote("tie")],
  ["3", "vote: wrapped is better", () => vote("wrapped")],
  ["r", "trace of the raw answer", () => current && !panels.raw.trace.hidden && trace("raw")],
  ["w", "trace of the wrapped answer", () => current && !panels.wrapped.trace.hidden && trace("wrapped")],
  ["l", "copy the link", () => current && copyLink()],
  ["h", "history", openHistory],
  ["t", "theme", nextTheme],
  ["?", "shortcuts", () => open("keys")],
]);
byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  compare();
});
byId("door").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey();
});
byId("stop").addEventListener("click", stop);
byId("model").addEventListener("change", showOther);
byId("key").addEventListener("change", listModels);
byId("link").addEventListener("click", copyLink);
byId("open-history").addEventListener("click", openHistory);
byId("open-keys").addEventListener("click", () => open("keys"));
for (const button of document.querySelectorAll("#vote [value]")) {
  button.addEventListener("click", () => vote(button.value));
}
listExamples();
byId("question").focus();
const begun = begin();
await begun;
addEventListener("hashchange", openLink);
document.body.dataset.ready = "yes";
