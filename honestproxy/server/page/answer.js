// One of the two answers as the page shows it: its text, what was done to it, what it cost.

import { tokens } from "./ask.js";
import { byId, copying, count, el, said, seconds } from "./dom.js";

const KINDS = {
  latest_information: "asks for what is newer than the model, or live",
  user_input: "the question leaves something out, or supposes what isn't so",
  professional_capability: "needs an expert's knowledge, access or judgement",
  modality_mismatch: "asks to see, hear, draw or do what text can't",
  interactivity_sensory: "asks for senses, a body or a memory of its own",
  self_identity: "asks of a life or feelings that a model doesn't have",
  knowledge_gap: "a fact that the model doesn't reliably know",
};

const OUTCOMES = {
  rewritten: "Rewritten",
  draft_kept: "Kept as drafted",
  draft_fallback: "Draft, for want of better",
  passed_through: "Passed through",
};

const STATES = {
  waiting: "asking …",
  streaming: "answering …",
  done: "done",
  stopped: "stopped",
  failed: "failed",
};

/** A panel for one answer, made from the page's template. */
export class Panel {
  constructor(side, { onTrace, onThumb }) {
    const made = byId("panel").content.cloneNode(true);
    this.root = made.querySelector("article");
    this.root.classList.add(side);
    this.root.setAttribute("aria-labelledby", `${side}-title`);
    this.part("title").id = `${side}-title`;
    this.trace = this.part("trace");
    this.trace.setAttribute("aria-controls", `${side}-steps`);
    this.trace.addEventListener("click", onTrace);
    for (const thumb of this.thumbs()) {
      thumb.addEventListener("click", () => onThumb(thumb.value));
    }
    copying(this.part("copy"), () => this.answer.text);
    this.letters = document.createTextNode("");
    this.part("text").append(this.letters);
    byId("answers").append(this.root);
  }

  part(name) {
    return this.root.querySelector(`[data-part="${name}"]`);
  }

  thumbs() {
    return this.root.querySelectorAll('[data-part="thumbs"] button');
  }

  title(name, detail = "") {
    this.part("title").textContent = name;
    this.part("strategy").textContent = detail;
  }

  /** Show an answer as it is now; `other` is the one that its cost is compared with. */
  show(answer, other = null) {
    this.answer = answer;
    const over = answer.seconds !== null;
    this.root.dataset.state = answer.state;
    this.part("state").textContent =
      answer.state === "waiting" && answer.reasoning ? "reasoning …" : STATES[answer.state];
    this.showText(answer.text, over);
    this.showReasoning(answer.reasoning);
    this.part("error").replaceChildren(...(answer.error ? problem(answer.error) : []));
    this.part("error").hidden = !answer.error;
    // Of a raw answer nothing was made: there is nothing to tell.
    this.part("found").replaceChildren(...(over && answer.honesty ? found(answer) : []));
    this.part("facts").replaceChildren(...(over ? facts(answer, other) : []));
    this.part("actions").hidden = !over;
    this.part("copy").hidden = this.part("thumbs").hidden = !answer.text;
    this.trace.hidden = !answer.traceId;
  }

  showText(text, over) {
    const shown = this.letters.data;
    // Only what is new is written: a reader may be selecting what stands.
    if (text.startsWith(shown)) this.letters.appendData(text.slice(shown.length));
    else this.letters.data = text;
    this.part("text").hidden = over && !text;
    this.part("text").setAttribute("aria-busy", String(!over));
  }

  showReasoning(reasoning) {
    this.part("reasoning").hidden = !reasoning;
    if (reasoning) this.part("reasons").textContent = reasoning;
  }

  thumb(value) {
    for (const button of this.thumbs()) {
      button.setAttribute("aria-pressed", String(button.value === value));
    }
  }
}

function problem({ message, type, code, status, outside }) {
  const names = [status, code ?? type].filter(Boolean).join(" · ");
  const hint =
    !outside && (status === 401 || status === 403)
      ? "A key can be given under “More”, or to the proxy as HONESTPROXY_UPSTREAM_KEY."
      : null;
  return [
    el("p", { class: "names" }, names || "error"),
    said("p", message, { class: "told" }),
    hint && el("p", { class: "hint" }, hint),
  ].filter(Boolean);
}

/** What was done to the answer: outcome, doubts, confidence. */
function found(answer) {
  const { honesty, outcome } = answer;
  const { reason, confidence } = honesty;
  const done = OUTCOMES[outcome] ?? outcome?.replaceAll("_", " ");
  const head = el(
    "p",
    { class: "outcome", "data-outcome": outcome },
    done && el("strong", {}, done),
    reason && said("span", reason),
  );
  return [head, ...doubted(honesty), ...(typeof confidence === "number" ? [sure(confidence)] : [])];
}

function doubted({ doubts }) {
  if (!doubts?.length) return []; // the reason beside the outcome says so
  const rows = doubts.map(({ kind, statement }) =>
    el(
      "li",
      { "data-kind": kind, dir: "auto" }, // the chip's own direction doesn't count
      el("span", { class: "chip", dir: "ltr", title: KINDS[kind] }, kind.replaceAll("_", " ")),
      el("span", { class: "statement" }, statement),
    ),
  );
  return [el("h3", {}, doubts.length === 1 ? "Doubt" : "Doubts"), el("ul", { class: "doubts" }, rows)];
}

function sure(value) {
  const percent = Math.round(value * 100);
  const bar = el("span", {
    class: "bar",
    role: "meter",
    "aria-label": "Confidence",
    "aria-valuemin": "0",
    "aria-valuemax": "100",
    "aria-valuenow": String(percent),
  });
  bar.style.setProperty("--part", `${percent}%`);
  const meaning = "that the plain answer is right and invents nothing";
  const words = el("span", {}, "Confidence ", el("b", {}, `${percent} %`), ` ${meaning}`);
  return el("p", { class: "confidence" }, words, bar);
}

/** What an answer cost; beside another one, how many times as much. */
function facts(answer, other) {
  const calls = (one) => one?.honesty?.calls ?? (one?.honesty === null && one?.traceId ? 1 : null);
  return [
    fact("calls", calls(answer), calls(other), count),
    fact("tokens", tokens(answer), other && tokens(other), count),
    fact("first token", answer.first, other?.first, seconds),
    fact("total", answer.seconds, other?.seconds, seconds),
  ];
}

function fact(name, value, than, written) {
  const known = typeof value === "number";
  const times = known && than > 0 ? (value / than).toFixed(value < 10 * than ? 1 : 0) : "1.0";
  return el(
    "div",
    {},
    el("dt", {}, name),
    el(
      "dd",
      {},
      known ? written(value) : "–",
      times !== "1.0" && el("small", {}, ` × ${times}`),
    ),
  );
}
