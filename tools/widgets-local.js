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

  // Say a slider's name and value to a screen reader: the slider itself knows only positions.
  const describe = () => {
    for (const handle of document.querySelectorAll(".jupyter-widgets .noUi-handle")) {
      const box = handle.closest(".widget-inline-hbox");
      const label = box?.querySelector(".widget-label")?.textContent;
      const readout = box?.querySelector(".widget-readout")?.textContent;
      if (label) handle.setAttribute("aria-label", label);
      if (readout) handle.setAttribute("aria-valuetext", readout);
    }
  };
  addEventListener("load", () => {
    new MutationObserver(describe).observe(document.body, { childList: true, characterData: true, subtree: true });
  });
})();
