// Elements without markup: whatever is shown comes in as text, never as HTML.

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * A new element. `traits` are attributes, but `on…` listens; children are elements or texts, and
 * those that are null, false or undefined are left out.
 */
export function el(tag, traits = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(traits)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child || child === 0));
  return made;
}

/** A text in whichever direction its own letters run. */
export const said = (tag, text, traits = {}) => el(tag, { dir: "auto", ...traits }, text);

/** Copy a text, also where the page isn't served from this machine. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = el("textarea", { class: "unseen", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** A button that copies what `text` gives when it is pressed, and says so for a moment. */
export function copying(button, text) {
  const label = button.textContent;
  button.addEventListener("click", async () => {
    try {
      await copy(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not copied";
    }
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}

/** 1234 as "1,234", in the reader's own way. */
export const count = (number) => number.toLocaleString();

/** Seconds with as many digits as matter. */
export const seconds = (time) => `${time.toFixed(time < 10 ? 2 : 1)} s`;
