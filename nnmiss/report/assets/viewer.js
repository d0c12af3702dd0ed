// Shows the cases embedded in this page: truth on the left, a prediction on the right, through NiiVue. No network.
(() => {
  "use strict";
  const section = document.getElementById("viewer");
  const element = (name) => document.getElementById(`viewer-${name}`);
  const index = JSON.parse(element("index").textContent);
  const AXIAL = 0, CORONAL = 1, SAGITTAL = 2, ALL = 3; // NiiVue's slice types
  const AXIS = { [AXIAL]: 2, [CORONAL]: 1, [SAGITTAL]: 0, [ALL]: 2 }; // the axis that the slider moves along
  const state = { entry: index.cases[0], modality: "", method: "", subset: "", view: AXIAL, opacity: 0.6, outline: false };
  const panes = {}; // left, right: { nv, image, labels }: a NiiVue and the blocks it shows
  const buffers = new Map(); // block -> NIfTI file, of the case that is shown
  let started = null, drawing = Promise.resolve(), wanted = 0, focused = null;

  // ---- data -------------------------------------------------------------------------------------------------------
  async function inflate(block) {
    const text = document.getElementById(block).textContent;
    const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  }

  async function fileOf(block) {
    const file = buffers.get(block) || await inflate(block);
    buffers.set(block, file);
    return file;
  }

  // NiiVue draws labels on the voxels of the image, so an image of half the resolution is brought to the labels' grid.
  async function imageFile(entry, block) {
    const labels = entry.gt || Object.values(entry.predictions).flatMap(Object.values)[0]?.block;
    const file = await fileOf(block), full = `${block}-full`;
    if (!entry.halved || !labels) return file;
    if (buffers.has(full)) return buffers.get(full);
    const small = new DataView(file), header = (await fileOf(labels)).slice(0, 352);
    let dims = [42, 44, 46].map((at) => small.getInt16(at, true));
    let data = new Uint8Array(file, small.getFloat32(108, true));
    entry.shape.forEach((size, axis) => {
      data = stretched(data, dims, axis, size);
      dims = dims.map((n, a) => (a === axis ? size : n));
    });
    const whole = await new Blob([header, data]).arrayBuffer();
    buffers.set(full, whole);
    return whole;
  }

  // Twice as many voxels along one axis, interpolated linearly; the inverse of averaging two neighbours.
  function stretched(data, dims, axis, size) {
    const inner = dims.slice(0, axis).reduce((a, b) => a * b, 1);
    const outer = dims.slice(axis + 1).reduce((a, b) => a * b, 1);
    const last = dims[axis] - 1, result = new Uint8Array(inner * size * outer);
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < size; i++) {
        const position = Math.min(Math.max(i / 2 - 0.25, 0), last), low = Math.floor(position);
        const weight = position - low, first = (o * dims[axis] + low) * inner;
        const second = (o * dims[axis] + Math.min(low + 1, last)) * inner, to = (o * size + i) * inner;
        for (let k = 0; k < inner; k++) {
          result[to + k] = Math.round(data[first + k] * (1 - weight) + data[second + k] * weight);
        }
      }
    }
    return result;
  }

  function colourTable() {
    const highest = Math.max(0, ...index.colours.map((c) => c.label));
    const table = { R: [], G: [], B: [], A: [], I: [] };
    for (let label = 0; label <= highest; label++) {
      const rgb = index.colours.find((c) => c.label === label)?.rgb;
      [table.R, table.G, table.B].forEach((channel, k) => channel.push(rgb ? rgb[k] : 0));
      table.A.push(rgb && label ? 255 : 0);
      table.I.push(label);
    }
    return table;
  }

  // ---- drawing ----------------------------------------------------------------------------------------------------
  async function start() {
    const lacking = !document.createElement("canvas").getContext("webgl2") ? "WebGL2"
      : typeof DecompressionStream === "undefined" ? "DecompressionStream" : "";
    if (lacking) {
      throw new Error(`this browser lacks ${lacking}. Turn on hardware acceleration, or open this page in a current ` +
        "Firefox, Chrome, Edge or Safari. The rest of the page does not need it.");
    }
    const script = document.createElement("script");
    script.textContent = new TextDecoder().decode(await inflate("viewer-niivue"));
    document.head.append(script);
    section.querySelector(".viewer-body").hidden = false;
    for (const side of ["left", "right"]) {
      const nv = new window.niivue.Niivue({
        logLevel: "error", loadingText: "", dragAndDropEnabled: false, scrollRequiresFocus: true,
        isRadiologicalConvention: true, multiplanarShowRender: 0, sliceType: state.view, crosshairColor: [1, 1, 0.6, 0.7],
        crosshairWidth: 0.4, crosshairGap: 12, fontColor: [1, 1, 0.6, 1], fontMinPx: 17,
        viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "",
      });
      await nv.attachToCanvas(element(side));
      nv.onLocationChange = updateSlice;
      panes[side] = { nv, image: null, labels: null };
    }
    ["left", "right"].forEach(listenToCanvas);
  }

  // The volumes of a pane that shows other blocks now; null where nothing changes.
  async function layers(pane, entry, image, labels) {
    const { NVImage } = window.niivue;
    if (pane.image === image && pane.labels === labels) return null;
    const back = pane.image === image ? pane.nv.volumes[0]
      : await NVImage.new(await imageFile(entry, image), "image.nii", "gray", 1, null, 0, 255);
    if (!labels) return [back];
    const overlay = await NVImage.new(await fileOf(labels), "labels.nii", "", overlayOpacity());
    overlay.setColormapLabel(colourTable());
    return [back, overlay];
  }

  // Outlines are drawn by the slider's opacity, what they enclose is left almost clear.
  const overlayOpacity = () => (state.outline ? 0.01 : state.opacity);

  async function draw() {
    const { entry, modality, method, subset } = state;
    section.setAttribute("aria-busy", "true");
    started ||= start();
    await started;
    const image = entry.images[modality], prediction = entry.predictions[method]?.[subset];
    const labels = { left: entry.gt, right: prediction?.block || null }, found = {};
    for (const side of ["left", "right"]) found[side] = await layers(panes[side], entry, image, labels[side]);
    for (const side of ["left", "right"]) {
      const pane = panes[side], { nv } = pane;
      const crosshair = focused === entry ? [...nv.scene.crosshairPos] : null;
      nv.opts.sliceType = state.view;
      nv.opts.atlasOutline = state.outline ? state.opacity : 0;
      if (found[side]) nv.volumes = found[side];
      if (nv.volumes[1]) nv.volumes[1].opacity = overlayOpacity();
      nv.setVolume(nv.volumes[0], 0); // uploads all layers
      nv.scene.crosshairPos = crosshair || nv.mm2frac(entry.focus);
      nv.drawScene();
      Object.assign(pane, { image, labels: labels[side] });
    }
    if (!focused) synchronise();
    focused = entry;
    writeCaptions(prediction);
    updateSlice();
    section.dataset.shown = [entry.name, modality, method, subset].join("|");
    section.setAttribute("aria-busy", "false");
  }

  // Crosshair, zoom and contrast follow in the other image. Both must show something by then.
  function synchronise() {
    const { left, right } = panes, what = { "2d": true, cal_min: true, cal_max: true };
    left.nv.broadcastTo(right.nv, what);
    right.nv.broadcastTo(left.nv, what);
  }

  // Draws the latest state; what was asked for in between is skipped.
  function show() {
    const mine = ++wanted;
    drawing = drawing.then(() => (mine === wanted ? draw() : null)).catch((error) => {
      section.setAttribute("aria-busy", "false");
      say(`The images cannot be shown: ${error.message}`);
    });
    return drawing;
  }

  // ---- slices -----------------------------------------------------------------------------------------------------
  function slice() {
    const { nv } = panes.left, axis = AXIS[state.view], count = nv.volumes[0].dimsRAS[axis + 1];
    return { axis, count, at: Math.min(count - 1, Math.floor(nv.scene.crosshairPos[axis] * count)) };
  }

  function updateSlice() {
    if (!panes.right || !panes.left.nv.volumes.length) return;
    const { count, at } = slice(), slider = element("slice");
    Object.assign(slider, { max: count - 1, value: at });
    slider.setAttribute("aria-valuetext", `${at + 1} of ${count}`);
    element("slice-number").textContent = `${at + 1} of ${count}`;
  }

  function goToSlice(number) {
    const { axis, count } = slice(), at = Math.min(Math.max(number, 0), count - 1);
    for (const { nv } of Object.values(panes)) {
      nv.scene.crosshairPos[axis] = (at + 0.5) / count;
      nv.drawScene();
    }
    updateSlice();
  }

  // NiiVue holds back every wheel event; the page must scroll unless the image was clicked on.
  function listenToCanvas(side) {
    const canvas = element(side);
    canvas.parentElement.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas) event.stopPropagation();
    }, { capture: true });
    canvas.addEventListener("mousedown", () => canvas.focus({ preventScroll: true }));
    canvas.parentElement.addEventListener("keydown", (event) => {
      const step = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
      if (!step) return;
      event.preventDefault();
      goToSlice(slice().at + step);
    }, { capture: true });
  }

  // ---- words ------------------------------------------------------------------------------------------------------
  function say(text) {
    const message = section.querySelector(".viewer-message");
    message.textContent = text;
    message.hidden = !text;
  }

  const circles = (members) => index.modalities.map((m) => (members.includes(m) ? "●" : "○")).join("");

  function writeCaptions(prediction) {
    const { entry, modality, method, subset } = state;
    const has = Object.keys(entry.images), used = subset.split("+");
    const words = {
      left: ["Truth", entry.gt ? `of ${entry.name} on ${modality}` : "none for this case",
        `the case has ${circles(has)} ${has.join(", ")}`],
      right: ["Prediction", prediction ? `of ${method} with ${circles(used)} ${used.join(", ")}` : "none for this case",
        prediction?.score || "", prediction && !used.includes(modality) ? `the network was not shown ${modality}` : ""],
    };
    for (const [side, [title, what, ...details]] of Object.entries(words)) {
      const name = document.createElement("strong"), detail = document.createElement("span");
      name.textContent = title;
      detail.textContent = details.filter(Boolean).join(" · ");
      element(`${side}-caption`).replaceChildren(name, ` ${what}`, detail);
      element(side).setAttribute("aria-label", `${modality} of ${entry.name}. ${title} ${what}`);
    }
  }

  function fill(name, options, chosen) {
    const select = element(name);
    select.replaceChildren(...options.map(({ value, text = value, disabled = false }) => {
      const option = new Option(text, value, false, value === chosen);
      option.disabled = disabled;
      return option;
    }));
    select.parentElement.hidden = !options.length;
    return chosen;
  }

  // Keeps what was chosen where the case has it too.
  function fillChoices() {
    const { entry } = state, images = Object.keys(entry.images), methods = Object.keys(entry.predictions);
    fill("case", index.cases.map((c) => ({ value: c.name })), entry.name);
    state.modality = fill("modality", index.modalities.map((m) => ({ value: m, text: images.includes(m) ? m : `${m} (absent)`,
      disabled: !images.includes(m) })), images.includes(state.modality) ? state.modality : images[0]);
    state.method = fill("method", methods.map((m) => ({ value: m })),
      methods.includes(state.method) ? state.method : methods[0] || "");
    const subsets = Object.keys(entry.predictions[state.method] || {});
    const largest = subsets.reduce((a, b) => (b.split("+").length > a.split("+").length ? b : a), subsets[0] || "");
    state.subset = fill("subset", subsets.map((s) => ({ value: s, text: `${circles(s.split("+"))} ${s}` })),
      subsets.includes(state.subset) ? state.subset : largest);
  }

  function openCase(name) {
    const entry = index.cases.find((c) => c.name === name);
    if (!entry) {
      say(`The images of case ${name} are not in this page, only those of ${index.cases.map((c) => c.name).join(", ")}.`);
      return drawing;
    }
    if (entry !== state.entry) buffers.clear();
    state.entry = entry;
    say("");
    fillChoices();
    return show();
  }

  // ---- controls ---------------------------------------------------------------------------------------------------
  element("case").addEventListener("change", (event) => openCase(event.target.value));
  for (const name of ["modality", "method", "subset"]) {
    element(name).addEventListener("change", (event) => {
      state[name] = event.target.value;
      fillChoices();
      show();
    });
  }
  element("view").addEventListener("change", (event) => { state.view = +event.target.value; show(); });
  element("slice").addEventListener("input", (event) => { if (panes.right) goToSlice(+event.target.value); });
  element("opacity").addEventListener("input", (event) => { state.opacity = event.target.value / 100; show(); });
  element("outline").addEventListener("change", (event) => { state.outline = event.target.checked; show(); });
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("[data-case]");
    if (!link) return;
    openCase(link.getAttribute("data-case"));
    if (!link.hasAttribute("href")) section.scrollIntoView();
  });
  for (const { name, rgb } of index.colours) {
    const item = document.createElement("li"), swatch = document.createElement("span");
    swatch.style.backgroundColor = `rgb(${rgb.join(",")})`;
    item.append(swatch, name);
    section.querySelector(".viewer-legend").append(item);
  }
  fillChoices();
  window.nnmissViewer = { openCase, state, panes };
  // NiiVue is started when the viewer comes near: a page that is only read stays light.
  new IntersectionObserver((seen, observer) => {
    if (!seen.some((s) => s.isIntersecting)) return;
    observer.disconnect();
    show();
  }, { rootMargin: "600px" }).observe(section);
})();
