// Runs between require.js and the html-manager of ipywidgets, on the pages that have widgets.
(() => {
  // Modules come from the folder of this script, wherever the page is.
  require.config({ baseUrl: document.currentScript.src.replace(/[^/]*$/, "") });

  // The html-manager speaks to MathJax 2; the site has MathJax 3.
  addEventListener("load", () => {
    if (window.MathJax && !MathJax.Hub) {
      MathJax.Hub = { Queue: ([, , element]) => MathJax.typesetPromise([element]) };
    }
  });

  // Tell a screen reader what a control shows: a slider knows only positions, a button of a switch only its own word.
  const say = (element, name, value) => {
    if (element.getAttribute(name) !== value) element.setAttribute(name, value);
  };
  const describe = () => {
    for (const handle of document.querySelectorAll(".jupyter-widgets .noUi-handle")) {
      const box = handle.closest(".widget-inline-hbox");
      const label = box?.querySelector(".widget-label")?.textContent;
      const readout = box?.querySelector(".widget-readout")?.textContent;
      if (label) handle.setAttribute("aria-label", label);
      if (readout) handle.setAttribute("aria-valuetext", readout);
    }
    for (const button of document.querySelectorAll(".widget-toggle-buttons button")) {
      const label = button.closest(".widget-toggle-buttons").querySelector(".widget-label")?.textContent;
      if (label) say(button, "aria-label", `${label}: ${button.textContent}`);
      say(button, "aria-pressed", String(button.classList.contains("mod-active")));
    }
  };
  addEventListener("load", () => {
    const changes = { childList: true, characterData: true, subtree: true };
    new MutationObserver(describe).observe(document.body, { ...changes, attributes: true, attributeFilter: ["class"] });
  });
})();
