// Bets: one chooses, hears the reason for that choice, and what follows unfolds. Beside them, boxes for other exercises that judge.js can judge.
// tools/bets.py has written them into the page; without this script nothing is folded. What was bet is kept in this browser, and nowhere else.
(() => {
  if (!globalThis.judge) return;
  const root = document.documentElement, foundInFolds = "onbeforematch" in root;
  root.classList.add("bets-on");
  root.classList.toggle("bets-found", foundInFolds);

  const KEY = "bets"; // {exercise: answer}, an empty answer where one let the page show it
  let kept = {};
  const read = () => {
    try {
      const found = JSON.parse(localStorage.getItem(KEY));
      if (found?.constructor === Object) kept = found;
    } catch { /* no storage, or something else wrote there: the page begins anew */ }
  };
  const keep = (change) => {
    read(); // another page of the book may be open, and have kept its own meanwhile
    change();
    try { localStorage.setItem(KEY, JSON.stringify(kept)); } catch { /* the page works without, until it is left */ }
  };
  read();

  addEventListener("DOMContentLoaded", () => {
    const data = JSON.parse(document.getElementById("exercise-data").textContent);
    const all = (selector, from = document) => [...from.querySelectorAll(selector)];
    all(":is(.bet, .bet-check, .bet-tally) :is(button, input)").forEach((control) => control.removeAttribute("disabled"));
    const say = (place, state, message) => {
      const strong = document.createElement("strong");
      strong.textContent = state;
      place.replaceChildren(strong, ` ${message.replace(/ \(With `tell=True` the check tells you\.\)$/, "")}`);
    };

    const unfold = (fold, open = true) => {
      fold.classList.toggle("open", open);
      if (open) fold.removeAttribute("hidden");
      else if (foundInFolds) fold.setAttribute("hidden", "until-found");
    };
    const foldOf = (part) => part?.closest(".bet-fold:not(.open)");

    const boxes = all(".bet"), tally = document.querySelector(".bet-tally");
    const known = (name) => {
      const answer = kept[name];
      return answer === "" || (typeof answer === "string" && answer.length < 200 && judge(data[name], answer).known);
    };
    const words = (box, answer) => all("[data-answer]", box).find((button) => button.dataset.answer === answer)?.textContent ?? answer;

    const show = (box) => {
      const name = box.dataset.exercise, done = known(name), answer = done ? kept[name] : undefined;
      all(`.bet-fold[data-bet="${name}"]`).forEach((fold) => unfold(fold, done));
      box.classList.toggle("done", done);
      for (const button of all(".bet-options button", box)) {
        button.setAttribute("aria-pressed", String(button.dataset.answer === answer));
        button.toggleAttribute("aria-disabled", false);
        if (done) button.setAttribute("aria-disabled", "true");
      }
      for (const field of all("input", box)) {
        field.readOnly = done;
        field.value = answer ?? "";
      }
      const said = box.querySelector(".bet-said");
      if (!answer) {
        said.replaceChildren();
        return;
      }
      const { state, message } = judge(data[name], answer);
      say(said, `You bet “${words(box, answer)}”: ${state === "right" ? "right." : "not so."}`, message);
    };

    const count = () => {
      let right = 0, open = 0;
      for (const { dataset: { exercise: name } } of boxes) {
        const answer = known(name) ? kept[name] : undefined, state = answer && judge(data[name], answer).state;
        right += state === "right";
        open += answer === undefined;
        const box = boxes.find((one) => one.dataset.exercise === name);
        tally.querySelector(`[data-bet="${name}"]`).textContent = answer === undefined ? "open"
          : answer === "" ? "shown" : `you bet “${words(box, answer)}”, ${state === "right" ? "right" : "not so"}`;
      }
      tally.querySelector("[role=status]").textContent = `${right} of ${boxes.length} right${open ? `, ${open} still open` : ""}.`;
    };

    const bet = (box, answer) => {
      const name = box.dataset.exercise;
      if (known(name)) return;
      const { message, known: one } = answer === "" ? { known: true } : judge(data[name], answer);
      if (!one) {
        say(box.querySelector(".bet-said"), "Not yet.", message);
        return;
      }
      keep(() => { kept[name] = answer; });
      show(box);
      count();
    };

    for (const box of boxes) {
      show(box);
      const field = box.querySelector("input"), take = () => bet(box, field.value.trim() || " ");
      all(".bet-options button", box).forEach((button) => button.addEventListener("click", () => bet(box, button.dataset.answer)));
      box.querySelector(".bet-field button")?.addEventListener("click", take);
      field?.addEventListener("keydown", ({ key }) => { if (key === "Enter") take(); });
      box.querySelector(".bet-show").addEventListener("click", () => {
        bet(box, "");
        const answers = box.querySelector("details");
        answers.open = true;
        answers.querySelector("summary").focus(); // the button that was pressed is gone
      });
    }
    if (tally) {
      count();
      const again = () => { read(); boxes.forEach(show); count(); };
      addEventListener("storage", ({ key }) => { if (key === KEY) again(); }); // the same page in another tab
      addEventListener("pageshow", ({ persisted }) => { if (persisted) again(); }); // a page that was left and is back
      tally.querySelector(".bet-forget").addEventListener("click", () => {
        keep(() => boxes.forEach(({ dataset }) => delete kept[dataset.exercise]));
        boxes.forEach((box) => {
          box.querySelector("details").open = false;
          show(box);
        });
        count();
      });
    }

    // What a link leads to, what a search has marked, and what the browser has found on the page is never left in a fold.
    const lead = (hash) => {
      let name = hash.slice(1);
      try { name = decodeURIComponent(name); } catch { /* it is what it is */ }
      const target = name && document.getElementById(name), fold = target && foldOf(target);
      if (!fold) return;
      unfold(fold);
      target.scrollIntoView();
    };
    lead(location.hash);
    addEventListener("hashchange", () => lead(location.hash));
    addEventListener("click", ({ target }) => {
      const link = target.closest?.("a[href*='#']");
      if (link && link.pathname === location.pathname) lead(link.hash);
    });
    addEventListener("beforematch", ({ target }) => { if (target.matches?.(".bet-fold")) unfold(target); });
    addEventListener("load", () => all(".bet-fold:not(.open) .highlighted").map(foldOf).filter(Boolean).forEach((fold) => unfold(fold)));

    // Other exercises: as often as one likes, and nothing is kept.
    for (const box of all(".bet-check")) {
      const exercise = data[box.dataset.exercise], field = box.querySelector("input"), tell = box.querySelector(".bet-tell");
      const check = (answer, told = false) => {
        const { state, message, known: one } = judge(exercise, answer, told);
        say(box.querySelector(".bet-said"), state === "right" ? "Right." : state === "open" ? "Open." : "Not yet.", message);
        if (tell) tell.hidden = !one || state === "right" || told;
      };
      for (const button of all(".bet-options button", box)) {
        button.setAttribute("aria-pressed", "false");
        button.addEventListener("click", () => {
          all(".bet-options button", box).forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
          check(button.dataset.answer);
        });
      }
      box.querySelector(".bet-field button")?.addEventListener("click", () => check(field.value));
      field?.addEventListener("keydown", ({ key }) => { if (key === "Enter") check(field.value); });
      tell?.addEventListener("click", () => {
        check(field.value, true);
        field.focus();
      });
    }
  });
})();
