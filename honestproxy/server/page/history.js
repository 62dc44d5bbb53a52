// The drawer with earlier comparisons: open one, delete one, clear all.

import { byId, el, said } from "./dom.js";
import { comparisons, forget, forgetAll } from "./store.js";

const VOTES = { raw: "raw was better", tie: "a tie", wrapped: "wrapped was better" };

/** When something was, in the reader's own way. */
export const when = (at) =>
  new Date(at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

/** Fill the drawer; `open` is called with the comparison that is chosen. */
export function listHistory(open) {
  const all = comparisons();
  const again = () => listHistory(open);
  byId("history-list").replaceChildren(...all.map((entry, at) => row(entry, at, open, again)));
  byId("history-none").hidden = all.length > 0;
  byId("history-clear").hidden = all.length === 0;
  settle(byId("history-clear"));
  byId("history-clear").onclick = ({ currentTarget }) => clear(currentTarget, all.length, again);
}

function row(entry, at, open, again) {
  const facts = [when(entry.at), entry.model, entry.strategy, VOTES[entry.vote]];
  const choose = el(
    "button",
    { type: "button", class: "entry", onclick: () => open(entry) },
    said("span", entry.question, { class: "question" }),
    el("small", {}, facts.filter(Boolean).join(" · ")),
  );
  const remove = () => {
    forget(entry.id);
    again();
    const left = byId("history-list").querySelectorAll(".entry");
    (left[Math.min(at, left.length - 1)] ?? byId("history-close")).focus();
  };
  const label = `Delete: ${entry.question}`;
  const x = el("button", { type: "button", class: "plain", "aria-label": label, onclick: remove }, "Delete");
  return el("li", {}, choose, x);
}

/** The first press asks, the second one clears. */
function clear(button, number, again) {
  if (button.dataset.sure) {
    forgetAll();
    again();
    byId("history-close").focus();
    return;
  }
  button.dataset.sure = "yes";
  button.textContent = `Really delete ${number === 1 ? "it" : `all ${number}`}?`;
}

function settle(button) {
  delete button.dataset.sure;
  button.textContent = "Clear all";
}
