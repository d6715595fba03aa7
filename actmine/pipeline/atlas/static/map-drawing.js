// Draws the points of a map into pixels itself, so that 100,000 of them take a few milliseconds, and pictures over them.
window.atlasMapDrawing = (canvas, changed) => {
  "use strict";
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  const MOST_LOADING = 6, MOST_KEPT = 240, MOST_SHOWN = 80, LEAST_SIDE = 26, MOST_SIDE = 84;
  let image = null, pixels = null;

  // pictures: a few load at a time, and those that one has moved on from no longer
  const kept = new Map(); // address -> image, the latest last
  const loading = new Map();
  function picture(address, wanted) {
    wanted.add(address);
    const found = kept.get(address);
    if (found) { kept.delete(address); kept.set(address, found); }
    return found;
  }
  function load(wanted) {
    for (const [address, element] of loading)
      if (!wanted.has(address)) { loading.delete(address); element.onload = element.onerror = null; element.src = "data:,"; }
    for (const address of wanted) {
      if (loading.size >= MOST_LOADING) return;
      if (kept.has(address) || loading.has(address)) continue;
      const element = new Image();
      const done = () => {
        loading.delete(address);
        kept.set(address, element);
        for (const old of kept.keys()) { if (kept.size <= MOST_KEPT) break; kept.delete(old); }
        changed();
      };
      element.onload = element.onerror = done;
      loading.set(address, element);
      element.src = address;
    }
  }

  // a disc as shares of pixels, so that its edge is smooth
  const discs = new Map();
  function disc(radius) {
    const name = Math.round(radius * 4);
    if (!discs.has(name)) {
      const exact = name / 4, reach = Math.ceil(exact), found = [];
      for (let y = -reach; y <= reach; y++)
        for (let x = -reach; x <= reach; x++) {
          const covered = Math.round(256 * Math.min(1, Math.max(0, exact + 0.5 - Math.hypot(x, y))));
          if (covered > 8) found.push([x, y, covered > 248 ? 256 : covered]);
        }
      found.sort((one_of, other_of) => other_of[2] - one_of[2]); // those that are covered whole come first
      const [across, down, share] = [0, 1, 2].map((side) => Int32Array.from(found, (each) => each[side]));
      discs.set(name, { reach, across, down, share, solid: share.filter((each) => each === 256).length });
    }
    return discs.get(name);
  }
  const mixed = (under, over, share) => {
    const rest = 256 - share;
    const odd = ((under & 0xff00ff) * rest + (over & 0xff00ff) * share) >>> 8;
    const even = (((under >>> 8) & 0xff) * rest + ((over >>> 8) & 0xff) * share) & 0xff00;
    return 0xff000000 | (odd & 0xff00ff) | even;
  };

  function points(scene, passes) {
    const { x, y, colours, on, view, ratio, paper, faded } = scene;
    const width = canvas.width, height = canvas.height, k = view.scale * ratio;
    const left = width / 2 - view.x * k, top = height / 2 + view.y * k;
    const { reach, solid, across, down, share } = disc(scene.radius * ratio), parts = share.length;
    const offsets = down.map((rows, part) => rows * width + across[part]);
    pixels.fill(paper);
    for (const pass of passes)
      for (let i = 0; i < x.length; i++) {
        if (on && on[i] !== pass) continue;
        const px = Math.round(left + x[i] * k), py = Math.round(top - y[i] * k);
        if (px < -reach || py < -reach || px >= width + reach || py >= height + reach) continue;
        const colour = on && !on[i] ? faded : colours[i];
        const middle = py * width + px;
        if (px >= reach && py >= reach && px < width - reach && py < height - reach) {
          for (let part = 0; part < solid; part++) pixels[middle + offsets[part]] = colour;
          for (let part = solid; part < parts; part++) {
            const at = middle + offsets[part];
            pixels[at] = mixed(pixels[at], colour, share[part]);
          }
          continue;
        }
        for (let part = 0; part < parts; part++) {
          const ax = px + across[part], ay = py + down[part];
          if (ax < 0 || ay < 0 || ax >= width || ay >= height) continue;
          const at = ay * width + ax;
          pixels[at] = mixed(pixels[at], colour, share[part]);
        }
      }
    context.putImageData(image, 0, 0);
  }

  // of each cell of a grid that lies still in the plane, one point shows its picture, if no other is in its way
  function pictured(scene, side) {
    const { x, y, on, view, css, order } = scene;
    const cell = 2 ** Math.ceil(Math.log2(1.3 * side / view.scale)), apart = 0.85 * side / view.scale;
    const [wide, high] = [css.width / 2 / view.scale, css.height / 2 / view.scale];
    const chosen = new Map(), free = (i) => {
      const [cx, cy] = [Math.floor(x[i] / cell), Math.floor(y[i] / cell)];
      for (let dx = -1; dx < 2; dx++)
        for (let dy = -1; dy < 2; dy++) {
          const other = chosen.get(`${cx + dx},${cy + dy}`);
          if (other !== undefined && Math.abs(x[other] - x[i]) < apart && Math.abs(y[other] - y[i]) < apart) return false;
        }
      return true;
    };
    for (const i of order) {
      if (Math.abs(x[i] - view.x) > wide || Math.abs(y[i] - view.y) > high || (on && !on[i])) continue;
      const name = `${Math.floor(x[i] / cell)},${Math.floor(y[i] / cell)}`;
      if (chosen.has(name) || !scene.shot(i) || !free(i)) continue;
      chosen.set(name, i);
      if (chosen.size >= MOST_SHOWN) break;
    }
    return [...chosen.values()];
  }

  function over(scene) {
    const { x, y, view, css } = scene;
    const place = (i) => [css.width / 2 + (x[i] - view.x) * view.scale, css.height / 2 - (y[i] - view.y) * view.scale];
    const wanted = new Set();
    context.setTransform(scene.ratio, 0, 0, scene.ratio, 0, 0);
    if (scene.current >= 0 && scene.shot(scene.current)) wanted.add(scene.shot(scene.current)[0]);
    const side = Math.min(MOST_SIDE, 1.1 * scene.spacing * view.scale);
    if (side >= LEAST_SIDE) {
      for (const i of pictured(scene, side)) {
        const [address, ...part] = scene.shot(i);
        const found = picture(address, wanted);
        if (!found || !found.naturalWidth) continue;
        const [fullWide, , l, t, r, b] = part;
        const factor = part.length ? found.naturalWidth / fullWide : 1;
        const source = part.length ? [l * factor, t * factor, Math.max(1, (r - l) * factor), Math.max(1, (b - t) * factor)] : [0, 0, found.naturalWidth, found.naturalHeight];
        const grown = side / Math.max(source[2], source[3]);
        const [px, py] = place(i), wide = source[2] * grown, high = source[3] * grown;
        context.fillStyle = scene.css_colour(i);
        context.fillRect(px - wide / 2 - 2, py - high / 2 - 2, wide + 4, high + 4);
        context.imageSmoothingEnabled = Math.max(source[2], source[3]) > 64;
        context.drawImage(found, ...source, px - wide / 2, py - high / 2, wide, high);
      }
    }
    load(wanted);
    for (const [i, star] of scene.noted) {
      const [px, py] = place(i);
      if (px < -9 || py < -9 || px > css.width + 9 || py > css.height + 9) continue;
      context.font = "600 15px system-ui, sans-serif";
      context.textAlign = "center"; context.textBaseline = "middle";
      said(scene, star ? "★" : "◆", px, py - scene.radius - 9, scene.accent);
    }
    context.font = "600 13px system-ui, sans-serif";
    context.textAlign = "center"; context.textBaseline = "middle";
    const taken = [];
    for (const [label, rx, ry] of scene.regions) {
      const px = css.width / 2 + (rx - view.x) * view.scale, py = css.height / 2 - (ry - view.y) * view.scale;
      if (px < 0 || py < 0 || px > css.width || py > css.height) continue;
      const wide = context.measureText(label).width / 2 + 6;
      if (taken.some(([ox, oy, ow]) => Math.abs(ox - px) < ow + wide && Math.abs(oy - py) < 18)) continue;
      taken.push([px, py, wide]);
      said(scene, label, px, py, scene.ink);
    }
    if (scene.current >= 0) {
      const [px, py] = place(scene.current);
      context.strokeStyle = scene.accent;
      context.lineWidth = 2;
      context.beginPath();
      context.arc(px, py, scene.radius + 4, 0, 7);
      context.stroke();
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
  }
  function said(scene, text, x, y, colour) {
    context.lineJoin = "round";
    context.lineWidth = 4;
    context.strokeStyle = scene.paper_css;
    context.strokeText(text, x, y);
    context.fillStyle = colour;
    context.fillText(text, x, y);
  }

  return {
    draw(scene) {
      if (!image || image.width !== canvas.width || image.height !== canvas.height) {
        image = context.createImageData(Math.max(canvas.width, 1), Math.max(canvas.height, 1));
        pixels = new Uint32Array(image.data.buffer);
      }
      points(scene, scene.on ? [0, 1] : [0]);
      over(scene);
    },
    loading: () => loading.size,
  };
};
