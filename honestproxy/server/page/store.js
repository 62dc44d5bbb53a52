// What this browser remembers, in localStorage; without it, nothing is remembered and all works.

const PREFIX = "honestproxy.";
const MOST = 100;

/** A remembered value, or `other` where there is none that can be read. */
export function recall(name, other = null) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name)) ?? other;
  } catch {
    return other;
  }
}

/** Remember a value; whether there was room for it. */
export function remember(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

/** All comparisons, the newest first. */
export function comparisons() {
  const kept = recall("history", []);
  return Array.isArray(kept) ? kept.filter((entry) => entry?.id && entry.sides) : [];
}

/** Keep a comparison, in place of an earlier state of the same one; the oldest make room. */
export function keep(entry) {
  const others = comparisons().filter((other) => other.id !== entry.id);
  let all = [entry, ...others].sort((a, b) => b.at - a.at).slice(0, MOST);
  while (all.length && !remember("history", all)) all = all.slice(0, -1);
}

/** Forget one comparison. */
export function forget(id) {
  remember("history", comparisons().filter((entry) => entry.id !== id));
}

/** Forget them all. */
export function forgetAll() {
  remember("history", []);
}

/** The newest comparison that asked just this, if any. */
export function earlier({ question, model, strategy }) {
  return comparisons().find(
    (entry) =>
      entry.question === question && entry.model === model && entry.strategy === strategy,
  );
}
