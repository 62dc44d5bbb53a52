// One question to the proxy: its answer as it streams, and what it cost.

import { isOutside } from "./access.js";

/** Cuts a stream of server-sent events into the data of each; comments and pings have none. */
export class EventReader {
  #held = "";
  #data = [];

  /** The data of every event that `text` completes. */
  feed(text) {
    // A return at the very end may be half of a line's end: it waits for what follows.
    const lines = (this.#held + text).split(/\r\n|\n|\r(?!$)/);
    this.#held = lines.pop();
    return lines.map((line) => this.#take(line)).filter((data) => data !== null);
  }

  #take(line) {
    if (line === "" && this.#data.length) return this.#data.splice(0).join("\n");
    if (line.startsWith("data:")) this.#data.push(line.slice(line[5] === " " ? 6 : 5));
    return null;
  }
}

/** What is known of an answer before anything has come. */
export const blank = () => ({
  state: "waiting", // then streaming; then done, stopped or failed
  text: "",
  reasoning: "",
  error: null,
  traceId: null,
  honesty: null,
  outcome: null,
  usage: null,
  first: null,
  seconds: null,
});

/**
 * Ask, and fill in `answer` as news comes; `changed` is called for each. Never raises: what goes
 * wrong is the answer's `error`.
 */
export async function ask({ question, model, strategy, key, signal }, answer, changed) {
  const started = performance.now();
  const elapsed = () => (performance.now() - started) / 1000;
  try {
    const response = await fetch("v1/chat/completions", {
      method: "POST",
      headers: headersFor(strategy, key),
      body: JSON.stringify({
        ...(model ? { model } : {}),
        messages: [{ role: "user", content: question }],
        stream: true,
        stream_options: { include_usage: true },
      }),
      signal,
    });
    answer.traceId = response.headers.get("x-honesty-trace-id");
    answer.outcome = response.headers.get("x-honesty-outcome");
    if (!response.ok) throw await refusal(response);
    await read(response, answer, changed, elapsed);
    answer.state = "done";
  } catch (error) {
    answer.state = signal.aborted ? "stopped" : "failed";
    if (!signal.aborted) answer.error = explained(error);
  }
  answer.seconds = elapsed();
  changed();
}

function headersFor(strategy, key) {
  return {
    "Content-Type": "application/json",
    "X-Honesty-Trace": "keep",
    ...(strategy ? { "X-Honesty": strategy } : {}),
    ...(key ? { Authorization: `Bearer ${key}` } : {}),
  };
}

async function read(response, answer, changed, elapsed) {
  if ((response.headers.get("content-type") ?? "").startsWith("application/json")) {
    take(await response.json(), answer, elapsed);
    return;
  }
  const events = new EventReader();
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    for (const data of events.feed(decoder.decode(value, { stream: !done }))) {
      if (data === "[DONE]") return;
      take(JSON.parse(data), answer, elapsed);
      changed();
    }
    if (done) throw new Refusal({ message: "The answer broke off: the stream ended too early." });
  }
}

/** Take in a chunk, or a whole completion; raises where it tells of an error. */
function take(piece, answer, elapsed) {
  if (piece.error) throw new Refusal(piece.error);
  const choice = piece.choices?.[0] ?? {};
  const news = choice.delta ?? choice.message ?? {};
  const text = (news.content ?? "") + (news.refusal ?? "");
  const reasoning = news.reasoning_content ?? news.reasoning ?? "";
  if (text && answer.first === null) answer.first = elapsed();
  if (text || reasoning) answer.state = "streaming";
  answer.text += text;
  answer.reasoning += typeof reasoning === "string" ? reasoning : "";
  answer.usage = piece.usage ?? answer.usage;
  answer.honesty = piece.honesty ?? answer.honesty;
  answer.outcome = answer.honesty?.outcome ?? answer.outcome;
}

/** An error in OpenAI's shape. */
class Refusal extends Error {
  constructor(error, status = null) {
    super(typeof error === "string" ? error : (error.message ?? "No reason was given."));
    this.outside = false;
    this.type = error.type ?? null;
    this.code = error.code ?? null;
    this.status = status;
  }
}

async function refusal(response) {
  const refused = shaped(response, await response.text());
  refused.outside = isOutside(response);
  return refused;
}

function shaped(response, body) {
  try {
    return new Refusal(JSON.parse(body).error ?? {}, response.status);
  } catch {
    return new Refusal({ message: body.slice(0, 2000) || response.statusText }, response.status);
  }
}

function explained(error) {
  if (error instanceof Refusal) {
    const { message, type, code, status, outside } = error;
    return { message, type, code, status, outside };
  }
  const message =
    error instanceof SyntaxError
      ? "The answer can't be read: an event of the stream isn't JSON."
      : "The proxy can't be reached. Does `honestproxy serve` still run?";
  return { message, type: null, code: null, status: null };
}

/** The tokens of an answer: of all its calls, where each told its own. */
export function tokens(answer) {
  const own = answer.honesty?.steps?.map((step) => step.usage?.total_tokens) ?? [];
  const known = own.filter((number) => typeof number === "number");
  if (known.length) return known.reduce((sum, number) => sum + number, 0);
  return answer.usage?.total_tokens ?? null;
}
