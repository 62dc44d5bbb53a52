// Runs cases through OpenAI's SDK for Node, and prints what it saw: client.py's twin.
// The arguments: a file of cases, the base URL, the key, the strategy. See test_sdks.py.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.env.NODE_CLIENTS}/`);
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const { default: OpenAI } = await load("openai");
const { zodResponseFormat, zodTextFormat } = await load("openai/helpers/zod");
const { z } = await load("zod");
const { VERSION } = await load("openai/version");

const Joke = z.object({ setup: z.string(), laughs: z.number().int() });
const outcome = (thing) => thing?.honesty?.outcome ?? null;
const calls = (found) =>
  (found ?? []).map((call) => [call.function.name, JSON.parse(call.function.arguments)]);

function told(reply) {
  const { message, finish_reason, logprobs } = reply.choices[0];
  return {
    contents: reply.choices.map((choice) => choice.message.content),
    content: message.content,
    refusal: message.refusal ?? null,
    reasoning: message.reasoning_content ?? null,
    calls: calls(message.tool_calls),
    finish: finish_reason,
    tokens: logprobs?.content?.map((token) => token.token) ?? null,
    has_usage: reply.usage?.total_tokens > 0,
    honesty: outcome(reply),
  };
}

function take(seen, parts, chunk) {
  seen.ids.add(chunk.id);
  seen.usages += chunk.usage ? 1 : 0;
  seen.empty += chunk.choices.length ? 0 : 1;
  for (const choice of chunk.choices) {
    seen.content += choice.delta.content ?? "";
    seen.refusal += choice.delta.refusal ?? "";
    seen.reasoning += choice.delta.reasoning_content ?? "";
    seen.roles += choice.delta.role ? 1 : 0;
    if (choice.finish_reason) seen.finishes.push(choice.finish_reason);
    seen.choice_honesty = outcome(choice) ?? seen.choice_honesty;
    for (const call of choice.delta.tool_calls ?? []) {
      const part = (parts[call.index] ??= { function: { name: "", arguments: "" } });
      part.function.name += call.function.name ?? "";
      part.function.arguments += call.function.arguments ?? "";
    }
  }
  seen.honesty = outcome(chunk) ?? seen.honesty;
}

function responded(reply) {
  const called = reply.output.filter((item) => item.type === "function_call");
  return {
    text: reply.output_text,
    status: reply.status,
    calls: called.map((item) => [item.name, JSON.parse(item.arguments)]),
    has_usage: reply.usage?.total_tokens > 0,
    honesty: outcome(reply),
  };
}

const verbs = {
  async chat(client, ask) {
    return told(await client.chat.completions.create(ask));
  },

  async again(client, ask) {
    return told(await client.chat.completions.create(ask, { maxRetries: 1 }));
  },

  async stream(client, ask) {
    const seen = { content: "", reasoning: "", refusal: "", roles: 0, finishes: [] };
    Object.assign(seen, { usages: 0, honesty: null, choice_honesty: null, ids: new Set() });
    seen.empty = 0;
    const parts = [];
    try {
      const chunks = await client.chat.completions.create({ ...ask, stream: true });
      for await (const chunk of chunks) take(seen, parts, chunk);
    } catch (error) {
      Object.assign(seen, failure(error));
    }
    return { ...seen, calls: calls(parts), ids: seen.ids.size };
  },

  async stream_helper(client, ask) {
    let shown = null;
    const events = client.chat.completions.stream(ask);
    events.on("chunk", (chunk) => (shown = outcome(chunk)));
    const final = await events.finalChatCompletion();
    return { ...told(final), choice_honesty: outcome(final.choices[0]), shown };
  },

  async parse(client, ask) {
    const response_format = zodResponseFormat(Joke, "Joke");
    const reply = await client.chat.completions.parse({ ...ask, response_format });
    return { ...told(reply), parsed: reply.choices[0].message.parsed };
  },

  async respond(client, ask) {
    return responded(await client.responses.create(ask));
  },

  async respond_stream(client, ask) {
    const [types, numbers] = [[], []];
    let [deltas, last] = ["", null];
    try {
      for await (const event of await client.responses.create({ ...ask, stream: true })) {
        types.push(event.type);
        numbers.push(event.sequence_number);
        deltas += event.type === "response.output_text.delta" ? event.delta : "";
        last = event;
      }
    } catch (error) {
      return { ...failure(error), deltas };
    }
    const ordered = numbers.every((number, at) => number === at);
    const ends = { first: types[0], last: types.at(-1), deltas, ordered };
    const text = last.response.output
      .flatMap((item) => item.content ?? [])
      .map((part) => part.text ?? "")
      .join("");
    return { ...responded(last.response), text, ...ends };
  },

  async respond_helper(client, ask) {
    return responded(await client.responses.stream(ask).finalResponse());
  },

  async respond_parse(client, ask) {
    const text = { format: zodTextFormat(Joke, "Joke") };
    const reply = await client.responses.parse({ ...ask, text });
    return { ...responded(reply), parsed: reply.output_parsed };
  },

  async respond_again(client, ask) {
    const made = await client.responses.create(ask);
    const found = await client.responses.retrieve(made.id);
    return { same: found.output_text === made.output_text };
  },

  async models(client) {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    return { ids, one: (await client.models.retrieve("m")).id };
  },

  async embed(client, ask) {
    const reply = await client.embeddings.create(ask);
    return { embeddings: reply.data.map((row) => row.embedding) };
  },

  async leave(client, ask) {
    const chunks = await client.chat.completions.create({ ...ask, stream: true });
    for await (const chunk of chunks) {
      chunks.controller.abort();
      return { began: chunk.object };
    }
  },

  async give_up(client, ask) {
    return told(await client.chat.completions.create(ask, { timeout: 500 }));
  },
};

function failure(error) {
  if (!(error instanceof OpenAI.APIError)) throw error;
  return {
    error: error.constructor.name,
    status: error.status ?? null,
    code: error.code ?? null,
    param: error.param ?? null,
    message: error.message,
    retry_after: error.headers?.get("retry-after") ?? null,
    request_id: error.requestID ?? null,
  };
}

async function run(baseURL, key, strategy, { do: verb, ask, key: own, header }) {
  const defaultHeaders = header ? { "X-Honesty": strategy } : {};
  const client = new OpenAI({ baseURL, apiKey: own ?? key, maxRetries: 0, defaultHeaders });
  const { extra_body = {}, ...rest } = ask; // in Node, fields it doesn't know just go along
  try {
    return await verbs[verb](client, { ...rest, ...extra_body });
  } catch (error) {
    return failure(error);
  }
}

const [file, url, key, strategy] = process.argv.slice(2);
const cases = JSON.parse(readFileSync(file, "utf-8"));
const results = {};
for (const each of cases) results[each.name] = await run(url, key, strategy, each);
process.stdout.write(JSON.stringify({ version: VERSION, results }));
process.exit(0);
