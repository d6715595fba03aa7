// Conveniences: keys, live sorting and filtering, whole images on hover and click. Every page works without them.
(() => {
  "use strict";
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const made = (name, attributes = {}, space = "") => {
    const element = space ? document.createElementNS(space, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  const folded = (text) => text.toLowerCase().replaceAll("_", " ");

  const dialog = one("[data-dialog]");
  const kept = { // what a reader has chosen holds for the pages that follow
    get: (name) => { try { return sessionStorage.getItem(name); } catch { return null; } },
    set: (name, value) => { try { sessionStorage.setItem(name, value); } catch { /* a browser may forbid it */ } },
  };

  // notes are kept at once, and the page stays where it is
  document.addEventListener("submit", async (event) => {
    const form = event.target.closest("form[data-noting]");
    if (!form) return;
    event.preventDefault();
    const body = new URLSearchParams(new FormData(form, event.submitter));
    const answer = await fetch(form.action, { method: "POST", body }).catch(() => null);
    const page = answer && new DOMParser().parseFromString(await answer.text(), "text/html");
    const [before, after] = [one(".noted"), page && one(".noted", page)];
    if (answer && answer.ok && after) {
      for (const field of ["[data-write]", "[data-tag]"]) // what is half written elsewhere stays
        if (!one(field, form) && one(field, before)) one(field, after).value = one(field, before).value;
      before.replaceWith(document.adoptNode(after));
      const title = one(".title h1", page);
      if (title) one(".title h1").replaceWith(document.adoptNode(title));
      return;
    }
    const told = made("p", { role: "alert", class: "absent" });
    told.textContent = page && one("main p", page) ? one("main p", page).textContent : "It was not kept: the atlas does not answer.";
    all("[role=alert]", before).forEach((each) => each.remove());
    before.append(told);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.closest("form[data-noting]")) event.target.form.requestSubmit();
  });

  // the page's address, where the browser lets a page copy
  const copy = one("[data-copy]");
  if (copy && navigator.clipboard) {
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      const done = await navigator.clipboard.writeText(location.href).then(() => "Copied", () => "Not copied");
      copy.textContent = done;
      setTimeout(() => { copy.textContent = "Copy address"; }, 2000);
    });
  }

  // a unit for somebody else's page, fetched when it is asked for
  const embed = one("[data-embed]");
  if (embed) {
    const [area, button, told] = ["textarea", "button", "[role=status]"].map((each) => one(each, embed));
    embed.hidden = false;
    embed.addEventListener("toggle", async () => {
      if (!embed.open || area.value) return;
      const answer = await fetch(embed.dataset.embed).catch(() => null);
      if (answer && answer.ok) area.value = await answer.text();
      told.textContent = area.value ? `${Math.ceil(area.value.length / 1000)} kB` : "The atlas does not answer.";
    });
    area.addEventListener("focus", () => area.select());
    button.addEventListener("click", async () => {
      area.select(); // where the browser lets no page copy, the keyboard does
      const copied = navigator.clipboard && await navigator.clipboard.writeText(area.value).then(() => true, () => false);
      told.textContent = copied ? "Copied" : "Selected";
    });
  }

  // whole images
  const frames = all("a.frame:is([data-whole], :has(.cut image))");
  const numbers = (text) => (text || "").split(" ").filter(Boolean).map(Number);
  let shown = 0, bare = false;
  const warmth = (frame) => { // where a crop has its heat over it, it is not said twice
    const over = one(".over .heat", frame);
    if (!over) return frame.dataset.heat && [frame.dataset.heat, ...numbers(frame.dataset.place)];
    return ["href", "x", "y", "width", "height"].map((name) => over.getAttribute(name));
  };
  const whole = (frame) => { // nor where the crop is a part of it
    const image = one(".cut image", frame);
    if (!image) return [frame.dataset.whole, ...numbers(frame.dataset.size)];
    return [image.getAttribute("href"), ...["width", "height"].map((side) => Number(image.getAttribute(side)))];
  };
  function legendTo(most) { // what the colours mean: from nothing to the largest in the image
    const found = made("span", { class: "scale" });
    for (const text of ["0", "", most]) {
      const part = made(text ? "span" : "i");
      part.textContent = text;
      found.append(part);
    }
    return found;
  }
  function stage(frame, heated = true) {
    const [address, width, height] = whole(frame);
    const heat = heated && warmth(frame);
    const span = made("span", { class: `stage${Math.max(width, height) < 320 ? " little" : ""}${heat ? " heated" : ""}` });
    const kind = Math.max(width, height) <= 64 ? { class: "pixels" } : {};
    span.append(made("img", { src: address, alt: `the whole image ${frame.dataset.key}`, width, height, ...kind }));
    const space = "http://www.w3.org/2000/svg";
    const drawing = made("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, space);
    if (heat) {
      const [href, x, y, w, h] = heat;
      const within = made("svg", { width, height }, space);
      within.append(made("image", { class: "heat", href, x, y, width: w, height: h, preserveAspectRatio: "none" }, space));
      drawing.append(within);
    }
    for (const name of ["focus", "box"]) {
      const [left, top, right, bottom] = numbers(frame.dataset[name]);
      if (right === undefined) continue;
      const place = { x: left, y: top, width: Math.max(right - left, 1), height: Math.max(bottom - top, 1) };
      for (const kind of ["edge", name]) drawing.append(made("rect", { class: kind, ...place }, space)); // light in dark
    }
    span.append(drawing);
    return span;
  }
  function show(number) {
    shown = (number + frames.length) % frames.length;
    const frame = frames[shown];
    const line = made("p");
    const key = made("bdi");
    key.textContent = frame.dataset.key;
    const link = frame.href ? made("a", { href: frame.href }) : made("span");
    link.append(key);
    const note = made("span");
    note.textContent = frame.dataset.note;
    const go = made("span", { class: "go" });
    const heat = warmth(frame) ? [[bare ? "heat map" : "no heat map", "heat map on or off (h)", () => { bare = !bare; show(shown); }]] : [];
    for (const [text, name, act] of [...heat, ["←", "previous", () => show(shown - 1)], ["→", "next", () => show(shown + 1)], ["close", "close", () => dialog.close()]]) {
      const button = made("button", { type: "button", "aria-label": name });
      button.textContent = text;
      button.addEventListener("click", act);
      go.append(button);
    }
    line.append(note, link);
    if (warmth(frame) && !bare) line.append(legendTo(frame.dataset.most));
    line.append(go);
    const large = stage(frame, !bare);
    const [, width, height] = whole(frame);
    const most = Math.max(1, 720 / Math.max(width, height));
    const scale = Math.min((0.96 * innerWidth - 40) / width, 0.74 * innerHeight / height, most);
    Object.assign(one("img", large).style, { width: `${width * scale}px`, height: `${height * scale}px`, maxWidth: "none" });
    dialog.replaceChildren(large, line);
    if (!dialog.open) dialog.showModal();
  }
  const viewer = one("[data-viewer] .stage") && one("[data-viewer]");
  const beside = matchMedia("(min-width: 60.01rem)"); // elsewhere it would move what the finger is about to touch
  function peek(frame) {
    if (!viewer || !beside.matches) return;
    one(".stage", viewer).replaceWith(stage(frame));
    one("[data-note]", viewer).textContent = frame.dataset.note;
    const key = one("[data-key]", viewer);
    key.firstElementChild.textContent = frame.dataset.key;
    if (frame.href) key.href = frame.href;
  }
  frames.forEach((frame, number) => {
    frame.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") peek(frame); });
    frame.addEventListener("focus", () => peek(frame));
    frame.addEventListener("click", (event) => {
      if (!dialog || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      show(number);
    });
  });
  if (dialog) {
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      const step = { ArrowLeft: -1, ArrowRight: 1, k: -1, j: 1 }[event.key];
      if (event.key === "h" && warmth(frames[shown])) { bare = !bare; show(shown); }
      else if (step) show(shown + step);
      else return;
      event.preventDefault();
    });
    dialog.addEventListener("close", () => frames[shown] && frames[shown].focus({ preventScroll: true }));
  }

  // rows of exemplars stay open from unit to unit; an address may name one
  const rows = all("[data-rows=kept] > details");
  const open = kept.get("rows");
  if (open !== null) for (const row of rows) row.open = open.split(" ").includes(row.id);
  const named = rows.find((row) => `#${row.id}` === location.hash);
  if (named) named.open = true;
  for (const row of rows) row.addEventListener("toggle", () => {
    const others = (kept.get("rows") || "").split(" ").filter((id) => id && !document.getElementById(id));
    kept.set("rows", [...others, ...rows.filter((each) => each.open).map((each) => each.id)].join(" "));
  });
  const heats = one("[data-heat-switch]");
  if (heats) {
    heats.checked = kept.get("heat") === "1";
    heats.addEventListener("change", () => kept.set("heat", heats.checked ? "1" : "0"));
  }

  // the boxes of an image's page, and the heat of the unit pointed at
  const boxes = one("[data-boxes]");
  const legend = one("[data-warm]");
  function marked(within) {
    for (const tile of all("[data-mark]", within)) {
      const set = (on) => {
        const box = document.getElementById(tile.dataset.mark);
        const heat = box && box.dataset.heat;
        if (on && heat && !one(".heat", box)) {
          const [x, y, width, height] = numbers(box.dataset.place);
          box.prepend(made("image", { class: "heat", href: heat, x, y, width, height, preserveAspectRatio: "none" }, "http://www.w3.org/2000/svg"));
        }
        boxes.classList.toggle("chosen", on);
        if (box) box.classList.toggle("shown", on);
        boxes.parentElement.classList.toggle("heated", Boolean(on && heat));
        if (legend && on && heat) {
          legend.replaceChildren(legendTo(box.dataset.most));
        }
      };
      for (const name of ["pointerenter", "focusin", "touchstart"]) tile.addEventListener(name, () => set(true), { passive: true });
      for (const name of ["pointerleave", "focusout"]) tile.addEventListener(name, () => set(false));
    }
  }
  if (boxes) {
    if (legend) legend.hidden = false;
    marked(document);
    document.addEventListener("atlas-marks", (event) => marked(event.detail));
  }

  // sorting and filtering a layer's units
  const listed = (text) => {
    const spans = text.split(",").map((part) => /^\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?$/.exec(part));
    if (!spans.every(Boolean)) return () => false;
    return (unit) => spans.some((span) => Number(span[1]) <= unit && unit <= Number(span[2] || span[1]));
  };
  // places in the order of the server: the unknown last, then by number; rows are [something, value, unit]
  const inOrder = (rows, sort, reverse) => {
    const turned = (sort === "unit") === reverse ? -1 : 1;
    return rows.sort((a, b) => (Number.isNaN(a[1]) - Number.isNaN(b[1])) || turned * (a[1] - b[1]) || a[2] - b[2]);
  };
  const tools = one("[data-tools]");
  const grid = one("#units");
  if (tools && tools.dataset.tools === "pages") { // a wide layer's pages are made anew
    tools.addEventListener("change", (event) => { if (event.target.name !== "label") tools.requestSubmit(); });
  } else if (tools && grid) {
    const tiles = all(".tile", grid);
    const value = (tile, sort) => { const text = tile.getAttribute(`data-${sort}`); return text ? Number(text) : NaN; };
    const digits = (number) => {
      if (Number.isNaN(number)) return "-";
      if (!number) return "0";
      const places = 2 - Math.floor(Math.log10(Math.abs(number)));
      if (places < -4 || places > 6) return number.toExponential(2);
      return number.toLocaleString("en", { minimumFractionDigits: Math.max(places, 0), maximumFractionDigits: Math.max(places, 0) });
    };
    const percent = (share) => {
      const hundred = share * 100;
      if (Number.isNaN(share)) return "-";
      return hundred >= 9.95 || !hundred ? `${hundred.toFixed(0)}%` : hundred >= 0.95 ? `${hundred.toFixed(1)}%` : `${Number(hundred.toPrecision(2))}%`;
    };
    const said = { number: digits, percent, fixed: (value) => Number.isNaN(value) ? "-" : value.toFixed(3), times: (ratio) => Number.isNaN(ratio) ? "-" : `${digits(ratio)} ×` };
    const arrange = () => {
      const { sort, label, reverse } = tools.elements;
      const text = folded(label.value.trim());
      const number = listed(text);
      const keyed = inOrder(tiles.map((tile) => [tile, value(tile, sort.value), value(tile, "unit")]), sort.value, reverse.checked);
      let count = 0;
      const by = sort.value === "unit" ? "activation_max" : sort.value;
      const option = one(`option[value=${by}]`, sort);
      one("[data-by]").textContent = option.textContent;
      for (const [tile, , unit] of keyed) {
        tile.hidden = Boolean(text) && !number(unit) && !folded(tile.dataset.label).includes(text);
        count += !tile.hidden;
        one(".note", tile).textContent = said[option.dataset.form](value(tile, by));
      }
      grid.append(...keyed.map((each) => each[0]));
      one("[data-count]", tools).textContent = `${count.toLocaleString("en")} of ${tiles.length.toLocaleString("en")} units`;
      const asked = new URLSearchParams();
      if (sort.value !== "unit") asked.set("sort", sort.value);
      if (reverse.checked) asked.set("reverse", "1");
      if (label.value.trim()) asked.set("label", label.value.trim());
      for (const card of all("a.card", grid)) card.setAttribute("href", card.getAttribute("href").split("?")[0] + (asked.size ? `?${asked}` : ""));
      history.replaceState(null, "", location.pathname + (asked.size ? `?${asked}` : "") + location.hash);
    };
    const asked = new URLSearchParams(location.search);
    const { sort, label, reverse } = tools.elements;
    if (asked.has("sort") && all("option", sort).some((option) => option.value === asked.get("sort"))) sort.value = asked.get("sort");
    if (asked.has("label")) label.value = asked.get("label");
    reverse.checked = asked.get("reverse") === "1";
    if (asked.size) arrange();
    tools.addEventListener("input", arrange);
    tools.addEventListener("submit", (event) => { event.preventDefault(); arrange(); });
  }

  // exported units' pages go on in the order that their address carries
  const steps = one("[data-orders]");
  if (steps && location.search) {
    const script = made("script", { src: steps.dataset.orders });
    script.addEventListener("load", () => {
      const asked = new URLSearchParams(location.search);
      const orders = window.atlasOrders;
      const sort = Object.hasOwn(orders, asked.get("sort") || "") && asked.get("sort") !== "label" ? asked.get("sort") : "unit";
      const text = folded((asked.get("label") || "").trim());
      const number = listed(text);
      const rows = orders.unit.map((unit, at) => [at, orders[sort][at] ?? NaN, unit]);
      const chosen = rows.filter(([at, , unit]) => !text || number(unit) || folded(orders.label[at]).includes(text));
      const order = inOrder(chosen, sort, asked.get("reverse") === "1").map((row) => row[2]);
      const at = order.indexOf(Number(steps.dataset.unit));
      if (at < 0) return;
      all("link[rel=prev], link[rel=next]").forEach((link) => link.remove());
      steps.replaceChildren(...all("[data-stays]", steps));
      for (const [relation, unit] of [["prev", order[at - 1]], ["next", order[at + 1]]]) {
        if (unit === undefined) continue;
        const href = `${unit}.html?${asked}`;
        document.head.append(made("link", { rel: relation, href }));
        const step = made("a", { href, title: `unit ${unit}` });
        step.textContent = relation === "prev" ? `← ${unit}` : `${unit} →`;
        steps.append(step);
      }
    });
    document.head.append(script);
  }

  // the search of exported pages, whose data search.js brings
  const found = one("[data-found]");
  if (found && window.atlasIndex) {
    const { layers, labels, images } = window.atlasIndex;
    const text = (new URLSearchParams(location.search).get("q") || "").trim();
    one("#q").value = text;
    const wanted = text.toLowerCase();
    const pairs = (text) => new Set(Array.from({ length: Math.max(text.length - 1, 0) }, (_, at) => text.slice(at, at + 2)));
    const alike = (one, other) => { // the share of pairs of letters that both have (Dice)
      const [its, others] = [pairs(one), pairs(other)];
      return 2 * [...its].filter((pair) => others.has(pair)).length / (its.size + others.size || 1);
    };
    const only = layers.findIndex((layer) => layer.name === new URLSearchParams(location.search).get("in"));
    const list = (title, rows) => {
      if (!rows.length) return;
      const section = made("section"), heading = made("h2"), items = made("ul", { class: "plain columns" });
      heading.textContent = title;
      for (const [name, address] of rows.slice(0, 200)) {
        const item = made("li"), link = made("a", { href: address }), words = made("bdi");
        words.textContent = name;
        link.append(words);
        item.append(link);
        items.append(item);
      }
      section.append(heading, items);
      found.append(section);
    };
    if (text) {
      one("[data-help]").hidden = true;
      const unit = (layer, number) => [`${layers[layer].name} ${number}`, `layer/${layers[layer].file}/${number}.html`];
      const asked = /^(?:(.*?)[\s/:#]+)??(?:unit\s*)?(\d{1,9})$/.exec(wanted);
      if (only >= 0) {
        const number = listed(text), rows = [];
        for (let each = 0; each < layers[only].units && rows.length < 200; each++) if (number(each)) rows.push(unit(only, each));
        list(`Units of ${layers[only].name}`, rows);
      } else list("Layers", layers.filter((layer) => layer.name.toLowerCase().includes(wanted)).map((layer) => [layer.name, `layer/${layer.file}.html`]));
      if (asked && only < 0) list("Units", layers.flatMap((layer, at) => layer.name.toLowerCase().includes((asked[1] || "").trim()) && Number(asked[2]) < layer.units ? [unit(at, Number(asked[2]))] : []));
      for (const [label, units] of labels) if (folded(label).includes(folded(wanted))) list(label, units.filter(([layer]) => only < 0 || layer === only).map(([layer, number]) => unit(layer, number)));
      if (only < 0) list("Images", images.filter((image) => folded(image[1]).includes(folded(wanted))).map(([number, key]) => [key, `image/${number}.html`]));
      if (!one("section", found)) {
        const none = made("p");
        none.textContent = "Nothing is called so.";
        found.append(none);
        const near = [...labels.map(([label]) => label), ...layers.map((layer) => layer.name)].map((name) => [alike(folded(wanted), folded(name)), name]);
        list("Did you mean", near.filter(([share]) => share >= 0.5).sort((a, b) => b[0] - a[0]).slice(0, 6).map(([, name]) => [name, `?q=${encodeURIComponent(name)}`]));
      }
    }
  }
})();
