// The trace of an answer: each call to the model, what it was sent, and what came back.

import { credentials } from "./access.js";
import { copying, count, el, said, seconds } from "./dom.js";

/** The trace of that id with its texts; null where the proxy keeps none. */
export async function traced(id) {
  try {
    const path = `v1/honesty/traces/${encodeURIComponent(id)}`;
    const response = await fetch(path, { headers: credentials() });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

/** Show a trace in its section; where its texts are gone, what the answer itself told of it. */
export async function showSteps(section, name, answer) {
  section.replaceChildren(el("p", { class: "quiet" }, "Reading the trace …"));
  const trace = await traced(answer.traceId);
  const steps = trace?.steps ?? answer.honesty?.steps ?? [];
  const longest = Math.max(...steps.map((step) => step.seconds ?? 0), 0.001);
  const parts = [
    el(
      "header",
      {},
      el("h2", {}, `Trace of the ${name} answer`),
      el("p", {}, "Trace ", el("code", {}, answer.traceId)),
    ),
    trace
      ? null
      : el(
          "p",
          { class: "quiet" },
          "The texts are no longer kept: the proxy holds the last traces, for this machine alone.",
        ),
    el("ol", {}, steps.map((step) => shown(step, longest, Boolean(trace)))),
  ];
  section.replaceChildren(...parts.filter(Boolean));
}

function shown(step, longest, whole) {
  const bar = el("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--part", `${(100 * (step.seconds ?? 0)) / longest}%`);
  const used = step.usage?.total_tokens;
  const head = el(
    whole ? "summary" : "div",
    { class: "head" },
    el("b", {}, step.name),
    step.prompt
      ? el("code", { title: "prompt file and digest" }, `${step.prompt}.md · ${step.digest}`)
      : el("code", {}, "the request itself"),
    el("span", { class: "tokens" }, typeof used === "number" ? `${count(used)} tokens` : ""),
    el("span", { class: "time" }, step.seconds === null ? "–" : seconds(step.seconds)),
    bar,
    step.error && said("span", step.error, { class: "fault" }),
  );
  if (!whole) return el("li", {}, head);
  return el("li", {}, el("details", {}, head, el("div", { class: "texts" }, sent(step), back(step))));
}

function sent({ model, messages }) {
  return el(
    "section",
    {},
    el("h3", {}, "Sent", model && el("code", {}, model)),
    messages.map((message) => {
      const text = written(message.content);
      return el("div", { class: "message" }, role(message.role, text), said("pre", text));
    }),
  );
}

function back({ text, error, finish_reason: reason, scores }) {
  const what = text ?? (error ? "Nothing: it failed." : "Nothing.");
  return el(
    "section",
    {},
    el("h3", {}, "Came back", reason && el("code", {}, reason)),
    el("div", { class: "message" }, role("assistant", what), said("pre", what)),
    scores && el("div", { class: "message" }, role("read inside", ""), scored(scores)),
  );
}

function role(name, text) {
  const button = text && copying(el("button", { type: "button", class: "plain" }, "Copy"), () => text);
  return el("p", { class: "role" }, name, button);
}

const scored = (scores) => said("pre", JSON.stringify(scores, null, 2));

/** A message's content as text; what isn't text is named by its type. */
function written(content) {
  if (typeof content === "string") return content;
  const parts = Array.isArray(content) ? content : [];
  const named = ({ type, text }) => `[${text ? `${type}: ${text}` : type}]`;
  return parts.map((part) => (part.type === "text" ? part.text : named(part))).join("\n");
}
