// Runs before the first paint, so that a chosen theme doesn't flash in the other one.
try {
  const chosen = JSON.parse(localStorage.getItem("honestproxy.theme"));
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage is blocked or holds something else: the system's theme serves.
}
