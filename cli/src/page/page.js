// Search, filters, keyboard and the marking of what belongs together. Without this the page still shows everything: each step
// is a link to its details.
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const input = document.querySelector("#search");
  const count = document.querySelector("#count");
  const chips = all("[data-filter]");
  const rows = all(".list a[data-step]");
  const links = new Map(); // number of a step -> everything on the page that stands for it
  for (const link of all("a[data-step]")) {
    const key = link.dataset.step;
    if (!links.has(key)) links.set(key, []);
    links.get(key).push(link);
  }
  const row = (key) => rows.find((link) => link.dataset.step === key);
  const words = new Map(rows.map((link) => [link.dataset.step, link.dataset.find.toLowerCase()]));
  let filter = "all";

  // Search and filters.
  const matches = (link) => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = words.get(link.dataset.step);
    return (filter === "all" || link.classList.contains(filter)) && wanted.every((word) => text.includes(word));
  };
  const apply = () => {
    let shown = 0;
    for (const link of rows) {
      const match = matches(link);
      shown += match;
      link.parentElement.hidden = !match;
      for (const other of links.get(link.dataset.step)) other.classList.toggle("out", !match);
    }
    for (const stage of all(".steps-of")) stage.hidden = all("li:not([hidden])", stage).length === 0;
    for (const chip of chips) chip.setAttribute("aria-pressed", String(chip.dataset.filter === filter));
    count.textContent = shown === rows.length ? `${shown} steps` : `${shown} of ${rows.length} steps`;
    tabStops();
  };
  input.addEventListener("input", apply);
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      filter = chip.dataset.filter;
      apply();
    });
  }

  // One tab stop for each group of steps; arrow keys go on from there.
  const groups = all("[data-steps]");
  const visible = (group) => all("a[data-step]", group).filter((link) => link.offsetParent !== null);
  const tabStops = () => {
    for (const group of groups) {
      const steps = all("a[data-step]", group);
      for (const link of steps) link.tabIndex = -1;
      const chosen = visible(group);
      const first = chosen.find((link) => link.hasAttribute("aria-current")) || chosen[0];
      if (first) first.tabIndex = 0;
    }
  };
  const move = (group, from, by) => {
    const steps = visible(group);
    const next = steps[Math.min(Math.max(steps.indexOf(from) + by, 0), steps.length - 1)];
    if (!next) return;
    for (const link of steps) link.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  };
  const ways = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
  for (const group of groups) {
    group.addEventListener("keydown", (event) => {
      const from = event.target.closest("a[data-step]");
      if (!from || !(event.key in ways) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      move(group, from, ways[event.key]);
    });
  }

  // The step whose details are open, what it depends on and what depends on it.
  const closure = (key, next) => {
    const found = new Set();
    const todo = [key];
    while (todo.length) {
      for (const other of next(todo.pop())) {
        if (!found.has(other)) {
          found.add(other);
          todo.push(other);
        }
      }
    }
    return found;
  };
  const users = new Map();
  const inputs = new Map();
  for (const link of rows) {
    const list = link.dataset.inputs.split(" ").filter(Boolean);
    inputs.set(link.dataset.step, list);
    for (const other of list) users.set(other, [...(users.get(other) || []), link.dataset.step]);
  }
  const graph = document.querySelector(".graph");
  let opener = null;
  const choose = () => {
    const key = (location.hash.match(/^#step-(\d+)$/) || [])[1];
    for (const link of all("a[aria-current]")) link.removeAttribute("aria-current");
    for (const link of all(".kin")) link.classList.remove("kin");
    for (const path of all(".graph path.on")) path.classList.remove("on");
    graph?.classList.toggle("chosen", Boolean(key && links.has(key)));
    if (key && links.has(key)) {
      const before = closure(key, (step) => inputs.get(step) || []);
      const after = closure(key, (step) => users.get(step) || []);
      for (const link of links.get(key)) link.setAttribute("aria-current", "true");
      for (const other of [...before, ...after]) for (const link of links.get(other) || []) link.classList.add("kin");
      const up = new Set([key, ...before]);
      const down = new Set([key, ...after]);
      for (const path of all(".graph path")) {
        const { from, to } = path.dataset;
        path.classList.toggle("on", (up.has(from) && up.has(to)) || (down.has(from) && down.has(to)));
      }
      document.querySelector(`#step-${key} h2`)?.focus({ preventScroll: true });
    }
    tabStops();
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-step]");
    if (link && !link.closest("aside")) opener = link;
    if (event.target.closest("a.close")) {
      event.preventDefault();
      close();
    }
  });
  const close = () => {
    if (!location.hash.startsWith("#step-")) return false;
    const key = location.hash.slice("#step-".length);
    const { scrollX, scrollY } = window;
    location.hash = ""; // which scrolls to the top
    window.scrollTo(scrollX, scrollY);
    choose();
    (opener || row(key))?.focus({ preventScroll: true });
    opener = null;
    return true;
  };
  window.addEventListener("hashchange", choose);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/" && event.target !== input) {
      event.preventDefault();
      input.focus();
      input.select();
    } else if (event.key === "Escape" && !close() && event.target === input) {
      input.value = "";
      apply();
    }
  });

  document.querySelector(".finder").hidden = false;
  apply();
  choose();
})();
