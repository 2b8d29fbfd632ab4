// A folded proof of sphinx-proof has no title, and the fold button of sphinx-togglebutton goes into the title: without one, nothing on the page
// folds. Not reported to either, as far as we looked on 2026-11-29.
document.addEventListener("readystatechange", () => {
  if (document.readyState !== "interactive") return; // before the fold buttons are made
  document.querySelectorAll("div.proof.dropdown:not(:has(> .admonition-title))").forEach((proof, number) => {
    proof.id = `proof-${number + 1}`; // each is called "proof"
    const title = document.createElement("p");
    title.className = "admonition-title";
    title.textContent = "Proof";
    const first = document.createTreeWalker(proof, NodeFilter.SHOW_TEXT);
    while (first.nextNode()) {
      if (!first.currentNode.data.trim()) continue;
      first.currentNode.data = first.currentNode.data.replace(/^\s*Proof\.\s*/, "");
      break;
    }
    proof.prepend(title);
  });
});
