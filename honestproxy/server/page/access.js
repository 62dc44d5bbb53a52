// The key that goes with what the page asks: the proxy's own, or the upstream's.

import { byId } from "./dom.js";

const NAME = "honestproxy.key";

/** Remember a key of the proxy's own as long as this tab is open; an empty one forgets it. */
export function rememberKey(key) {
  try {
    if (key) sessionStorage.setItem(NAME, key);
    else sessionStorage.removeItem(NAME);
  } catch {
    // without storage it is known until the page is left: the field still holds it
  }
}

/** The key to send; empty where none is known. */
export function currentKey() {
  let kept = null;
  try {
    kept = sessionStorage.getItem(NAME);
  } catch {
    // as above
  }
  return kept || byId("own-key").value.trim() || byId("key").value.trim();
}

/** Whether it was the proxy's own door that refused, rather than the upstream. */
export const isOutside = (response) =>
  response.status === 401 && (response.headers.get("www-authenticate") ?? "").includes("honestproxy");

/** The header that carries it. */
export function credentials() {
  const key = currentKey();
  return key ? { Authorization: `Bearer ${key}` } : {};
}
