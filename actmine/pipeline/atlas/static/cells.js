// The map of an activation atlas: zooms through its levels, moves, tells what the pointer is on. It is a map without this.
(() => {
  "use strict";
  const map = document.querySelector("[data-map]");
  if (!map) return;
  const space = "http://www.w3.org/2000/svg";
  const whole = 1000;
  const first = map.querySelector("g[data-side]");
  const groups = new Map([[Number(map.dataset.level), first]]);
  for (const each of document.querySelectorAll("template[data-level]")) groups.set(Number(each.dataset.level), each);
  const levels = [...groups.keys()].sort((one, other) => one - other);
  const base = levels.indexOf(Number(map.dataset.level));
  const side = (level) => Number((groups.get(level) instanceof HTMLTemplateElement ? groups.get(level).content.querySelector("g") : groups.get(level)).dataset.side);
  const told = document.querySelector("[data-told]");
  const beside = document.querySelector("[data-beside]");
  const most = Math.max(4, (side(levels[levels.length - 1]) / side(levels[base])) * 4);
  let view = { x: 0, y: 0, width: whole };
  let shown = levels[base];

  const group = (level) => {
    const its = groups.get(level);
    if (!(its instanceof HTMLTemplateElement)) return its;
    const made = document.importNode(its.content.querySelector("g"), true);
    for (const image of made.querySelectorAll("image")) { // fetched when it comes into sight
      image.dataset.href = image.getAttribute("href");
      image.removeAttribute("href");
      const cell = image.closest("a");
      cell.classList.add("waiting");
      for (const end of ["load", "error"]) image.addEventListener(end, () => cell.classList.remove("waiting"));
    }
    quiet(made);
    groups.set(level, made);
    return made;
  };

  // the finest level whose cells are no smaller than those of the first one were before any zoom
  const fitting = () => {
    const zoom = whole / view.width;
    let found = levels[Math.min(base, levels.length - 1)];
    for (const level of levels) if (side(level) <= side(levels[base]) * zoom * 1.1) found = level;
    return found;
  };

  // those in sight, and a little around it
  function fetched() {
    const slack = view.width / 4;
    for (const image of map.querySelectorAll("image[data-href]")) {
      const [x, y, size] = ["x", "y", "width"].map((each) => Number(image.getAttribute(each)));
      if (x + size < view.x - slack || x > view.x + view.width + slack || y + size < view.y - slack || y > view.y + view.width + slack) continue;
      image.setAttribute("href", image.dataset.href);
      delete image.dataset.href;
    }
  }

  // what is told beside the map need not be told by the browser as well
  const fine = matchMedia("(hover: hover) and (min-width: 60.01rem)");
  function quiet(within) {
    if (fine.matches) for (const title of within.querySelectorAll("title")) title.remove();
  }

  function draw() {
    view.width = Math.min(Math.max(view.width, whole / most), whole);
    view.x = Math.min(Math.max(view.x, 0), whole - view.width);
    view.y = Math.min(Math.max(view.y, 0), whole - view.width);
    map.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.width}`);
    map.classList.toggle("closer", view.width < whole);
    const level = fitting();
    if (level !== shown) {
      const had = map.contains(document.activeElement) && document.activeElement;
      map.replaceChildren(group(level));
      shown = level;
      roving();
      if (had) middle().focus();
      hide();
    }
    fetched();
    const zoom = whole / view.width;
    told.value = `${side(shown)} × ${side(shown)} cells${zoom > 1.01 ? `, ${zoom.toFixed(1)} ×` : ""}`;
  }

  function zoomed(by, x = view.x + view.width / 2, y = view.y + view.width / 2) {
    const before = view.width;
    view.width = Math.min(Math.max(view.width / by, whole / most), whole);
    const share = view.width / before;
    view.x = x - (x - view.x) * share;
    view.y = y - (y - view.y) * share;
    draw();
  }

  const at = (event) => {
    const frame = map.getBoundingClientRect();
    return [view.x + ((event.clientX - frame.left) / frame.width) * view.width, view.y + ((event.clientY - frame.top) / frame.height) * view.width];
  };

  // buttons, wheel, double click
  const buttons = document.querySelector("[data-zoom]");
  buttons.hidden = false;
  buttons.addEventListener("click", (event) => {
    const by = event.target.dataset.by;
    if (by === "0") { view = { x: 0, y: 0, width: whole }; draw(); }
    else if (by) zoomed(by === "1" ? 1.5 : 1 / 1.5);
  });
  map.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // a page is scrolled by the wheel alone
    event.preventDefault();
    zoomed(Math.exp(-event.deltaY / 250), ...at(event));
  }, { passive: false });

  // moving, with one pointer; pinching, with two
  const fingers = new Map();
  let moved = 0;
  map.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    moved = 0;
  });
  map.addEventListener("pointermove", (event) => {
    const last = fingers.get(event.pointerId);
    if (!last) { peek(event); return; }
    const frame = map.getBoundingClientRect();
    const before = spread();
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    const step = [event.clientX - last[0], event.clientY - last[1]];
    moved += Math.hypot(...step);
    if (view.width >= whole && fingers.size < 2) return;
    if (fingers.size > 1 && before) zoomed(spread() / before, ...at(event));
    else {
      view.x -= (step[0] / frame.width) * view.width;
      view.y -= (step[1] / frame.height) * view.width;
      if (moved > 6 && !map.hasPointerCapture(event.pointerId)) { map.setPointerCapture(event.pointerId); map.classList.add("held"); hide(); }
      draw();
    }
  });
  const spread = () => {
    const [one, other] = [...fingers.values()];
    return other ? Math.hypot(one[0] - other[0], one[1] - other[1]) : 0;
  };
  for (const end of ["pointerup", "pointercancel"]) map.addEventListener(end, (event) => { fingers.delete(event.pointerId); map.classList.remove("held"); });
  map.addEventListener("pointerleave", (event) => { if (!fingers.has(event.pointerId)) hide(); });
  map.addEventListener("click", (event) => { if (moved > 6) event.preventDefault(); }, true);
  map.addEventListener("dragstart", (event) => event.preventDefault());

  // what the pointer or the keyboard is on
  function tell(cell) {
    if (!beside || !fine.matches) return;
    if (beside.dataset.of === cell.getAttribute("aria-label") && !beside.hidden) return;
    beside.dataset.of = cell.getAttribute("aria-label");
    const large = document.createElement("img");
    large.alt = "";
    large.src = cell.querySelector("image").getAttribute("href") || "";
    large.className = cell.querySelector("image").getAttribute("class") || "";
    const line = document.createElement("p");
    line.textContent = cell.getAttribute("aria-label");
    beside.replaceChildren(large, line);
    beside.hidden = false;
    const frame = map.getBoundingClientRect(), own = cell.getBoundingClientRect(), width = beside.offsetWidth;
    const right = own.right - frame.left + 8;
    const fits = frame.left + right + width < document.documentElement.clientWidth;
    beside.style.left = `${fits ? right : own.left - frame.left - width - 8}px`;
    beside.style.top = `${Math.max(Math.min(own.top - frame.top, frame.height - beside.offsetHeight), 0)}px`;
  }
  function hide() { if (beside) beside.hidden = true; }
  function peek(event) {
    const cell = event.target.closest("a");
    if (cell) tell(cell); else hide();
  }

  // arrows go from cell to cell, so that one tab leads past the map
  const cells = () => [...map.querySelectorAll("a")];
  const place = (cell) => cell.dataset.at.split(" ").map(Number);
  const middle = () => {
    const half = side(shown) / whole;
    const [row, column] = [(view.y + view.width / 2) * half, (view.x + view.width / 2) * half];
    const away = (cell) => { const [y, x] = place(cell); return Math.hypot(y + 0.5 - row, x + 0.5 - column); };
    return cells().reduce((one, other) => (away(other) < away(one) ? other : one));
  };
  function roving(now = null) {
    const its = now || cells()[0];
    for (const cell of cells()) cell.setAttribute("tabindex", cell === its ? "0" : "-1");
  }
  map.addEventListener("focusin", (event) => {
    const cell = event.target.closest("a");
    if (!cell) return;
    roving(cell);
    if (cell.matches(":focus-visible")) tell(cell);
  });
  map.addEventListener("focusout", hide);
  map.addEventListener("keydown", (event) => {
    const cell = event.target.closest("a");
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!cell || !step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation(); // elsewhere arrows go from page to page
    const [row, column] = place(cell);
    let best = null, least = Infinity;
    for (const other of cells()) {
      const [y, x] = place(other);
      const along = (y - row) * step[0] + (x - column) * step[1];
      const across = Math.abs((y - row) * step[1]) + Math.abs((x - column) * step[0]);
      if (along > 0 && along + 2 * across < least) { best = other; least = along + 2 * across; }
    }
    if (!best) return;
    best.focus();
    const [y, x] = place(best).map((each) => (each / side(shown)) * whole), size = whole / side(shown);
    view.x = Math.min(Math.max(view.x, x + size - view.width), x);
    view.y = Math.min(Math.max(view.y, y + size - view.width), y);
    draw();
  });
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, select, textarea")) return;
    if (event.key === "+" || event.key === "=") zoomed(1.5);
    else if (event.key === "-") zoomed(1 / 1.5);
  });
  quiet(map);
  roving();
})();
