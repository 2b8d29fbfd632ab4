// What the search shows around a word that it found: text that can be read.
const SIGNS = {
  alpha: "α", beta: "β", gamma: "γ", delta: "δ", Delta: "Δ", varepsilon: "ε", eta: "η", theta: "θ", lambda: "λ", mu: "μ",
  pi: "π", rho: "ρ", varrho: "ϱ", sigma: "σ", phi: "φ", Phi: "Φ",
  "|": "‖", cdot: "·", ge: "≥", infty: "∞", le: "≤", ne: "≠", nabla: "∇", sum: "Σ", times: "×", to: "→", top: "ᵀ",
  mathcal: "", text: "", hat: "", tilde: "", big: "", Big: "", left: "", right: "", max: "max", min: "min", ",": " ", ";": " ",
};

// A short formula in letters and signs; three dots for one that has more to it than that.
const inWords = (formula) => {
  const plain = formula.match(/^\\\(([^]*)\\\)$/)?.[1]
    .replace(/\\([a-zA-Z]+|[^])/g, (command, name) => SIGNS[name] ?? command)
    .replace(/[{}]/g, "").replaceAll("^ᵀ", "ᵀ").trim();
  return plain && !plain.includes("\\") ? plain : "…";
};

addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined") return;

  // Sphinx takes all of the page: its buttons, its table of contents, TeX.
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    page.querySelectorAll(".headerlink, script, style").forEach((part) => part.remove());
    page.querySelectorAll(".math").forEach((math) => { math.textContent = inWords(math.textContent); });
    page.querySelectorAll("dd, dt, dt > strong, li, p, td, th").forEach((part) => part.append(" "));
    const article = page.querySelector("article.bd-article");
    const found = (anchor && article?.querySelector(anchor)) || article;
    const meaning = found?.matches("dt") ? found.nextElementSibling : null;
    return [found, meaning].map((part) => part?.textContent ?? "").join(" ").replace(/\s+/g, " ").trim();
  };

  // A result that has no text has no excerpt either, which Sphinx appends all the same (not reported, as far as we looked on 2026-11-29).
  const excerpt = Search.makeSearchSummary;
  Search.makeSearchSummary = (...of) => excerpt(...of) ?? document.createElement("p");
});
