// The filter of the results page: hides lines of its tables. Without this script every line is there.
document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector("form.results-filter");
  if (!form) return;
  const lines = [...document.querySelectorAll("table.compared tbody tr")].map((line) => ({
    line,
    words: `${line.closest("section").querySelector("h2").textContent} ${line.textContent}`.toLowerCase(),
  }));
  const folds = [...document.querySelectorAll("details.results-fold")];
  const openedByItself = new Map(folds.map((fold) => [fold, fold.open]));

  function apply() {
    const chosen = new FormData(form);
    const states = new Set(chosen.getAll("state"));
    const words = chosen.get("words").toLowerCase().split(/\s+/).filter(Boolean);
    const everything = states.size === 4 && words.length === 0 && !chosen.has("ours");
    let shown = 0;
    for (const { line, words: text } of lines) {
      const fits =
        states.has(line.className) &&
        (!chosen.has("ours") || line.hasAttribute("data-ours")) &&
        words.every((word) => text.includes(word));
      line.hidden = !fits;
      shown += fits;
    }
    for (const fold of folds) {
      const left = fold.querySelectorAll("tbody tr:not([hidden])").length;
      fold.open = everything ? openedByItself.get(fold) : left > 0;
      fold.querySelector("summary").textContent = everything ? `${left} numbers` : `${left} of these numbers`;
    }
    form.querySelector("output").textContent = `${shown} of ${lines.length} numbers are shown`;
  }

  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  apply();
});
