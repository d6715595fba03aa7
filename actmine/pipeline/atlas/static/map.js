// The map: reads its points, moves and zooms, colours, finds, and opens what is clicked. The view is in the address.
(() => {
  "use strict";
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const field = one("[data-map]"), canvas = one("canvas", field), card = one(".map-card", field);
  const told = one("[data-told]"), colour = one("[data-colour]");
  const find = one("[data-find]"), counted = one("[data-found]");
  const folded = (text) => text.toLowerCase().replaceAll("_", " ").trim();

  // the file of points
  async function read() {
    if (window.atlasMap !== undefined) return Uint8Array.from(atob(window.atlasMap), (each) => each.charCodeAt(0)).buffer;
    const answer = await fetch(field.dataset.map);
    if (!answer.ok) throw new Error(`${answer.status}`);
    return answer.arrayBuffer();
  }
  function unpacked(data) {
    const length = new DataView(data).getUint32(4, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 8, length)));
    header.of = {};
    header.columns.forEach(([name, kind], place) => {
      const at = 8 + length + place * 4 * header.count;
      header.of[name] = kind === "f" ? new Float32Array(data, at, header.count) : new Int32Array(data, at, header.count);
    });
    return header;
  }

  function start(map) {
    const { x, y, number, layer, label } = map.of, count = map.count, units = map.by === "units";
    const noted = new Map();
    let least = [0, 0], most = [1, 1];
    if (count) {
      const ends = (side) => side.reduce(([low, high], each) => [Math.min(low, each), Math.max(high, each)], [Infinity, -Infinity]);
      const [wide, high] = [ends(x), ends(y)];
      least = [wide[0], high[0]]; most = [wide[1], high[1]];
    }
    const middle = [(least[0] + most[0]) / 2, (least[1] + most[1]) / 2];
    const extent = [Math.max(most[0] - least[0], 1e-6), Math.max(most[1] - least[1], 1e-6)];
    const css = { width: 1, height: 1 };
    const view = { x: middle[0], y: middle[1], scale: 1 };
    const spacing = Math.sqrt(extent[0] * extent[1] / Math.max(count, 1)); // of points, were they spread evenly
    const order = Uint32Array.from({ length: count }, (_, i) => i); // favours no layer
    const shuffled = Float64Array.from(order, (i) => (Math.imul(i + 1, 0x9e3779b1) >>> 0));
    order.sort((one_of, other_of) => shuffled[one_of] - shuffled[other_of]);
    let whole = 1, only = null, current = -1, dirty = false, said = 0, on = null;
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const drawing = window.atlasMapDrawing(canvas, () => again());

    const with_number = (pattern, i) => pattern.replace("*", number[i]);
    function shot(i) {
      if (map.shots) { const its = map.shots[i]; return !its ? null : !units ? [its[0]] : typeof its === "string" ? [its] : its; }
      if (!units) return [with_number(map.whole, i)];
      const shown = map.of.shown[i], about = map.layers[layer[i]];
      return shown ? [with_number(shown === 2 ? about.drawn : about.crop, i)] : null;
    }
    function address(i) {
      if (!units) return map.shots ? (map.shots[i] || ["", ""])[1] : with_number(map.image, i);
      return with_number(map.layers[layer[i]].unit, i);
    }
    const name = (i) => units ? `${map.layers[layer[i]].name} · unit ${number[i]}` : map.keys[i] || `image ${number[i]}`;

    // colours
    const legend = window.atlasMapLegend(map, colour, one("[data-legend]"), dark, (named) => { only = only === named ? null : named; narrowed(); kept(); });
    function coloured() { legend.colour(); again(); }

    // what is found, or chosen in the legend, stands out
    function narrowed() {
      legend.press(only);
      const chosen_kind = only === null ? -1 : legend.names().indexOf(only);
      const wanted = folded(find.value);
      const exact = /^(.*?)(?:\s+|\s*·\s*unit\s+)?(\d+)$/.exec(wanted);
      on = wanted || only !== null ? new Uint8Array(count) : null;
      let found = 0;
      if (on) {
        const labels = map.labels.map((each) => !wanted || folded(each).includes(wanted));
        const layers = map.layers.map((each) => !wanted || folded(each.name).includes(wanted));
        const near_layers = exact && units ? map.layers.map((each) => folded(each.name).includes(folded(exact[1].replace(/unit$/, "")))) : [];
        for (let i = 0; i < count; i++) {
          const fits = !wanted || (label[i] >= 0 && labels[label[i]]) || (units ? layers[layer[i]] || (exact && number[i] === Number(exact[2]) && near_layers[layer[i]]) : folded(map.keys[i]).includes(wanted))
            || (noted.has(i) && folded(noted.get(i).words).includes(wanted));
          on[i] = fits && (only === null || legend.kind[i] === chosen_kind) ? 1 : 0;
          found += on[i];
        }
      }
      counted.textContent = on ? `${found.toLocaleString("en")} found` : "";
      again();
    }

    // drawing, once a frame at most
    const radius = () => Math.min(7, Math.max(0.8, Math.min(4.5, 70 / Math.sqrt(Math.max(count, 1)) + 0.7) * (view.scale / whole) ** 0.3));
    function again() { if (!dirty) { dirty = true; requestAnimationFrame(draw); } }
    function draw() {
      dirty = false;
      const start_of = performance.now();
      drawing.draw({
        x, y, colours: legend.colours, on, view, css, ratio: canvas.width / css.width, radius: radius(), current, shot, noted: [...noted].map(([i, its]) => [i, its.star]),
        spacing, order, regions: map.regions, ...legend.scene(),
      });
      field.dataset.drawn = (performance.now() - start_of).toFixed(2);
    }
    function sized() {
      const box = field.getBoundingClientRect(), ratio = Math.min(devicePixelRatio || 1, 2);
      if (!box.width || !box.height) return;
      const before = whole;
      css.width = field.clientWidth; css.height = field.clientHeight;
      canvas.width = Math.round(css.width * ratio); canvas.height = Math.round(css.height * ratio);
      whole = 0.92 * Math.min(css.width / extent[0], css.height / extent[1]);
      view.scale *= whole / before;
      again();
    }

    // where one is
    const within = (value, low, high) => Math.min(high, Math.max(low, value));
    function to(ax, ay, scale) {
      view.x = within(ax, least[0], most[0]); view.y = within(ay, least[1], most[1]);
      view.scale = within(scale, whole * 0.5, whole * 4000);
      again(); kept();
    }
    function zoomed(factor, px = css.width / 2, py = css.height / 2) {
      const scale = within(view.scale * factor, whole * 0.5, whole * 4000), dx = px - css.width / 2, dy = py - css.height / 2;
      to(view.x + dx / view.scale - dx / scale, view.y - dy / view.scale + dy / scale, scale);
    }
    const everything = () => to(middle[0], middle[1], whole);
    function kept() {
      clearTimeout(said);
      said = setTimeout(() => {
        const words = new URLSearchParams();
        if (view.scale !== whole || view.x !== middle[0] || view.y !== middle[1])
          words.set("at", [view.x, view.y, view.scale / whole].map((each) => Number(each.toPrecision(6))).join(","));
        if (colour.selectedIndex > 0) words.set("by", colour.value);
        if (only !== null) words.set("only", only);
        if (find.value.trim()) words.set("find", find.value.trim());
        history.replaceState(null, "", words.toString() ? `#${words}` : location.pathname + location.search);
      }, 150);
    }
    function from_address() {
      const words = new URLSearchParams(location.hash.slice(1));
      const by = words.get("by");
      if (by && [...colour.options].some((each) => each.value === by)) colour.value = by;
      find.value = words.get("find") || "";
      coloured();
      only = legend.names().includes(words.get("only")) ? words.get("only") : null;
      const [ax, ay, zoom] = (words.get("at") || "").split(",").map(Number);
      if (Number.isFinite(ax + ay) && zoom > 0) to(ax, ay, whole * zoom);
      legend.explain(); narrowed();
      const at = words.has("unit") ? index_of(words.get("layer"), Number(words.get("unit"))) : words.has("image") ? index_of(null, Number(words.get("image"))) : -1;
      if (at >= 0) { to(x[at], y[at], whole * within(Math.sqrt(count / 30), 2, 60)); chosen(at, true); }
    }
    function index_of(of, its) {
      const at = map.layers.findIndex((each) => each.name === of);
      for (let i = 0; i < count; i++) if (number[i] === its && (!units || layer[i] === at)) return i;
      return -1;
    }

    // what one points at
    function nearest(px, py, reach) {
      const ax = view.x + (px - css.width / 2) / view.scale, ay = view.y - (py - css.height / 2) / view.scale;
      let best = -1, least_apart = (reach / view.scale) ** 2;
      for (let i = 0; i < count; i++) {
        if (on && !on[i]) continue;
        const dx = x[i] - ax, dy = y[i] - ay, apart = dx * dx + dy * dy;
        if (apart < least_apart) { least_apart = apart; best = i; }
      }
      return best;
    }
    function chosen(i, aloud = false) {
      if (i === current && !aloud) return;
      current = i;
      card.hidden = i < 0;
      field.classList.toggle("on", i >= 0);
      if (i >= 0) {
        const [title, under, figures] = [one("b", card), one("i", card), one("small", card)], its = shot(i), picture = one("img", card);
        title.textContent = name(i);
        under.textContent = [label[i] >= 0 ? map.labels[label[i]] : "", noted.has(i) ? noted.get(i).words : ""].filter(Boolean).join(" · ");
        figures.textContent = map.measures.filter((each) => map.of[each.name][i] === map.of[each.name][i]).map((each) => `${each.words} ${legend.short(map.of[each.name][i])}`).join(" · ");
        card.classList.toggle("bare", !its || its.length > 1);
        picture.hidden = !its || its.length > 1;
        if (!picture.hidden) picture.src = its[0]; else picture.removeAttribute("src");
        const to_unit = address(i);
        if (to_unit) card.href = to_unit; else card.removeAttribute("href");
        placed();
      }
      if (aloud) told.textContent = i < 0 ? "" : [one("b", card).textContent, one("i", card).textContent].filter(Boolean).join(", ");
      again();
    }
    function placed() {
      if (current < 0) return;
      const px = css.width / 2 + (x[current] - view.x) * view.scale, py = css.height / 2 - (y[current] - view.y) * view.scale;
      const [wide, high] = [card.offsetWidth, card.offsetHeight];
      card.style.left = `${within(px + 16 + wide > css.width ? px - 16 - wide : px + 16, 4, Math.max(4, css.width - wide - 4))}px`;
      card.style.top = `${within(py - high / 2, 4, Math.max(4, css.height - high - 4))}px`;
    }
    function open(i, elsewhere) {
      const there = i >= 0 && address(i);
      if (!there) return;
      if (elsewhere) window.open(there, "_blank", "noopener"); else location.assign(there);
    }

    // mouse and fingers
    const fingers = new Map();
    let moved = 0, tapped = -1;
    const at = (event) => { const box = field.getBoundingClientRect(); return [event.clientX - box.left - field.clientLeft, event.clientY - box.top - field.clientTop]; };
    field.addEventListener("pointerdown", (event) => {
      if (event.button > 1) return;
      if (event.button === 1) event.preventDefault();
      field.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, at(event));
      if (fingers.size === 1) moved = 0;
      tapped = event.pointerType === "touch" ? current : -1;
    });
    field.addEventListener("pointermove", (event) => {
      const now = at(event), before = fingers.get(event.pointerId);
      if (!before) { if (event.pointerType === "mouse") chosen(nearest(...now, 14)); return; }
      const [dx, dy] = [now[0] - before[0], now[1] - before[1]];
      moved += Math.abs(dx) + Math.abs(dy);
      if (fingers.size === 2) {
        const other_one = [...fingers].find(([id]) => id !== event.pointerId)[1];
        const apart = (each) => Math.max(8, Math.hypot(each[0] - other_one[0], each[1] - other_one[1]));
        zoomed(apart(now) / apart(before), (now[0] + other_one[0]) / 2, (now[1] + other_one[1]) / 2);
        to(view.x - dx / 2 / view.scale, view.y + dy / 2 / view.scale, view.scale);
      } else if (moved > 4) {
        field.classList.add("moving");
        to(view.x - dx / view.scale, view.y + dy / view.scale, view.scale);
      }
      fingers.set(event.pointerId, now);
      placed();
    });
    field.addEventListener("pointerup", (event) => {
      const still = moved <= 4 && fingers.size === 1;
      if (fingers.delete(event.pointerId)) field.classList.remove("moving");
      if (!still) return;
      const i = nearest(...at(event), event.pointerType === "touch" ? 24 : 14);
      if (event.pointerType === "touch" && i !== tapped) { chosen(i, true); return; } // the first tap shows, the second opens
      open(i, event.button === 1 || event.ctrlKey || event.metaKey);
    });
    field.addEventListener("pointercancel", (event) => fingers.delete(event.pointerId));
    field.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse" && !fingers.size) chosen(-1); });
    field.addEventListener("wheel", (event) => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
      zoomed(Math.exp(-within(event.deltaY * lines, -400, 400) * (event.ctrlKey ? 0.01 : 0.0016)), ...at(event));
      chosen(nearest(...at(event), 14));
      placed();
    }, { passive: false });

    // keys
    field.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      const far = (event.shiftKey ? 0.4 : 0.1) * Math.min(css.width, css.height) / view.scale;
      if (step) to(view.x + step[0] * far, view.y + step[1] * far, view.scale);
      else if (event.key === "+" || event.key === "=") zoomed(1.5);
      else if (event.key === "-") zoomed(1 / 1.5);
      else if (event.key === "0") everything();
      else if (event.key === "Enter") open(current >= 0 ? current : nearest(css.width / 2, css.height / 2, Infinity), event.shiftKey);
      else if (event.key === "Escape") chosen(-1, true);
      else return;
      event.preventDefault();
      event.stopPropagation(); // the page's own arrows lead elsewhere
      if (event.key !== "Escape" && event.key !== "Enter") chosen(nearest(css.width / 2, css.height / 2, Infinity), true);
      placed();
    });

    // tools
    colour.addEventListener("change", () => { only = null; coloured(); legend.explain(); narrowed(); kept(); });
    find.addEventListener("input", () => { narrowed(); kept(); });
    find.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !on) return;
      const low = [Infinity, Infinity], high = [-Infinity, -Infinity];
      for (let i = 0; i < count; i++) if (on[i]) { low[0] = Math.min(low[0], x[i]); low[1] = Math.min(low[1], y[i]); high[0] = Math.max(high[0], x[i]); high[1] = Math.max(high[1], y[i]); }
      if (low[0] > high[0]) return;
      const scale = 0.85 * Math.min(css.width / Math.max(high[0] - low[0], extent[0] / 40), css.height / Math.max(high[1] - low[1], extent[1] / 40));
      to((low[0] + high[0]) / 2, (low[1] + high[1]) / 2, scale);
    });
    for (const button of all("[data-zoom]")) button.addEventListener("click", () => ({ in: () => zoomed(1.6), out: () => zoomed(1 / 1.6), all: everything })[button.dataset.zoom]());
    dark.addEventListener("change", () => { coloured(); legend.explain(); narrowed(); });
    addEventListener("hashchange", () => { if (location.hash.length > 1) from_address(); });

    const places = new Map();
    const marks = all("[data-noted] li");
    if (marks.length && units) for (let i = 0; i < count; i++) places.set(`${number[i]} ${map.layers[layer[i]].name}`, i);
    else if (marks.length) for (let i = 0; i < count; i++) places.set(`${number[i]} `, i);
    for (const mark of marks) {
      const i = places.get(`${mark.dataset.number} ${mark.dataset.layer}`);
      if (i !== undefined) noted.set(i, { star: mark.dataset.star === "1", words: mark.dataset.words });
    }
    one("[data-map-frame]").hidden = one("[data-map-tools]").hidden = false;
    sized();
    view.scale = whole;
    from_address();
    new ResizeObserver(() => { sized(); placed(); }).observe(field);
    field.dataset.ready = String(count);
  }

  read().then(unpacked).then(start).catch((error) => { told.textContent = `The map cannot be shown (${error.message}). Load the page again.`; });
})();
