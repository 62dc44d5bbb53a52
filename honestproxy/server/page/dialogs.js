// Theme, dialogs and keys: how the page is got about in.

import { byId, el } from "./dom.js";
import { recall, remember } from "./store.js";

const THEMES = ["auto", "light", "dark"];
const IS_MAC = /Mac|iPhone|iPad/.test(navigator.platform);
export const COMMAND = IS_MAC ? "⌘" : "Ctrl";

/** The button that goes through the themes. */
export function nextTheme() {
  const at = THEMES.indexOf(document.documentElement.dataset.theme ?? "auto");
  showTheme(THEMES[(at + 1) % THEMES.length]);
}

function showTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  byId("theme-name").textContent = theme;
  remember("theme", theme);
}

/** Open a dialog; what its close buttons and a press beside it do is set once, in `prepare`. */
export function open(id) {
  const dialog = byId(id);
  if (!dialog.open) dialog.showModal();
}

/** Let `keys`, rows of [key, what it does, action], work, and list them. */
export function prepare(keys) {
  byId("theme-name").textContent = document.documentElement.dataset.theme ?? "auto";
  byId("theme").addEventListener("click", nextTheme);
  byId("enter").textContent = `${COMMAND} ↵`;
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", ({ target }) => {
      if (target === dialog || target.closest("[data-close]")) dialog.close();
    });
  }
  const rows = keys.map(([key, told]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, told)]);
  byId("keys-list").replaceChildren(...rows.flat());
  listen(keys);
}

function listen(keys) {
  const on = byId("keys-on");
  on.checked = recall("keys", true);
  on.addEventListener("change", () => remember("keys", on.checked));
  const actions = new Map(keys.map(([key, , action]) => [key, action]));
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if ((event.ctrlKey || event.metaKey) && key === "Enter") {
      event.preventDefault();
      actions.get(`${COMMAND} ↵`)();
    } else if (key === "Escape" && !document.querySelector("dialog[open]")) {
      actions.get("Esc")();
    } else if (isCommand(event) && on.checked && actions.has(key) && !isTyping(target)) {
      event.preventDefault();
      actions.get(key)();
    }
  });
}

const isCommand = (event) =>
  !event.ctrlKey && !event.metaKey && !event.altKey && !document.querySelector("dialog[open]");

const isTyping = (target) => target.matches?.("textarea, select, input:not([type=checkbox])");
