"use strict";
// Draws figures as they come into view, downloads them and their data, sorts tables, shows one variant at a time.
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  const config = JSON.parse(document.getElementById("plot-config").textContent);

  // ---- figures
  const specs = new Map();
  const drawn = new Map();
  const written = (div) => JSON.parse(document.getElementById("data-" + div.id).textContent);
  const spec = (div) => {
    if (!specs.has(div.id)) specs.set(div.id, written(div));
    return specs.get(div.id);
  };
  const draw = (div) => {
    if (!drawn.has(div.id)) {
      const figure = spec(div);
      const name = div.dataset.name;
      const options = { ...config, toImageButtonOptions: { format: "svg", filename: name } };
      drawn.set(div.id, Plotly.newPlot(div, { data: figure.data, layout: figure.layout, frames: figure.frames, config: options })
        .then(() => div.classList.add("drawn")));
    }
    return drawn.get(div.id);
  };
  const plots = all(".plot");
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { near.unobserve(entry.target); draw(entry.target); }
  }, { rootMargin: "800px 0px" });
  for (const div of plots) near.observe(div);
  const shown = (div) => !div.closest("[hidden]");
  window.addEventListener("beforeprint", () => { for (const div of plots) if (shown(div)) draw(div); });

  // ---- the data of a figure as CSV: the same table as moesim.report.figure_data
  const kinds = { i1: Int8Array, u1: Uint8Array, i2: Int16Array, u2: Uint16Array, i4: Int32Array, u4: Uint32Array,
                  f4: Float32Array, f8: Float64Array };
  const values = (given) => {
    if (given === undefined || given === null) return [];
    if (given.bdata === undefined) return Array.isArray(given[0]) ? given.flat() : Array.from(given);
    const bytes = Uint8Array.from(atob(given.bdata), (c) => c.charCodeAt(0));
    return Array.from(new kinds[given.dtype](bytes.buffer));
  };
  const shape = (given) => given.bdata === undefined ? [given.length, given.length ? given[0].length : 0]
    : given.shape.split(",").map(Number);
  const text = (label) => {
    const broken = String(label ?? "").replaceAll("<br>", " ").replaceAll("%\u200b{", "%{");
    const area = document.createElement("textarea");  // decodes entities and runs nothing
    area.innerHTML = broken;
    return area.value.split(/\s+/).filter(Boolean).join(" ");
  };
  const columns = ["panel", "frame", "series", "x_axis", "x", "y_axis", "y", "value_axis", "value", "base",
                   "error_plus", "error_minus", "x_error_plus", "x_error_minus", "detail"];
  const ticks = (axis) => {
    if (axis.ticktext === undefined) return (value) => value;
    const at = values(axis.tickvals), texts = values(axis.ticktext).map(text);
    return (value) => typeof value === "number" && at.includes(value) ? texts[at.indexOf(value)] : value;
  };
  const count = (n) => Array.from({ length: n }, (_, i) => i);
  const rows = (trace, layout, frame) => {
    const axes = ["x", "y"].map((side) => layout[side + "axis" + (trace[side + "axis"] ?? side).slice(1)] ?? {});
    const [xText, yText] = axes.map(ticks);
    const named = { panel: text(trace.meta), frame, series: text(trace.name), x_axis: text(axes[0].title?.text),
                    y_axis: text(axes[1].title?.text) };
    if (trace.type === "heatmap") {
      const z = values(trace.z), [height, width] = shape(trace.z);
      const x = trace.x === undefined ? count(width) : values(trace.x);
      const y = trace.y === undefined ? count(height) : values(trace.y);
      const valueAxis = text(layout.coloraxis?.colorbar?.title?.text);
      return z.map((value, i) => ({ ...named, x: xText(x[i % width]), y: yText(y[Math.floor(i / width)]),
                                    value_axis: valueAxis, value }));
    }
    let x = values(trace.x), y = values(trace.y);
    if (!x.some((value) => value !== null)) return [];
    const base = trace.type === "bar" ? values(trace.base) : [];
    if (base.length && trace.orientation === "h") x = x.map((value, i) => base[i] + value);
    else if (base.length) y = y.map((value, i) => base[i] + value);
    const up = values(trace.error_y?.array), down = values(trace.error_y?.arrayminus);
    const right = values(trace.error_x?.array), left = values(trace.error_x?.arrayminus);
    const detail = trace.type === "scatter" && trace.text !== undefined ? values(trace.text) : values(trace.customdata);
    return x.map((value, i) => ({ ...named, x: xText(value), y: yText(y[i]), base: base[i], error_plus: up[i],
      error_minus: down[i], x_error_plus: right[i], x_error_minus: left[i], detail: detail.length ? text(detail[i]) : undefined }));
  };
  const csv = (figure) => {
    const found = figure.data.flatMap((trace) => rows(trace, figure.layout, ""));
    for (const frame of figure.frames ?? []) {
      found.push(...frame.data.flatMap((trace) => rows(trace, figure.layout, frame.name)));
    }
    const field = (value) => {
      if (value === undefined || value === null || Number.isNaN(value)) return "";
      return /[",\n\r]/.test(String(value)) ? '"' + String(value).replaceAll('"', '""') + '"' : String(value);
    };
    const used = columns.filter((name) => found.some((row) => field(row[name]) !== ""));
    return [used.join(","), ...found.map((row) => used.map((name) => field(row[name])).join(","))].join("\n") + "\n";
  };
  const save = (content, filename, type) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.download = filename;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-format]");
    if (!button) return;
    const div = document.getElementById(button.dataset.plot), format = button.dataset.format, name = div.dataset.name;
    if (format === "csv") save(csv(written(div)), name + ".csv", "text/csv");  // whatever frame is shown
    else draw(div).then(() => Plotly.downloadImage(div, { format, filename: name, scale: format === "png" ? 2 : 1,
      width: div.clientWidth, height: div.clientHeight }));
  });

  // ---- tables: a click on a header sorts by it, best first; the second click turns it round, the third undoes it
  for (const table of all("table.sortable")) {
    const body = table.tBodies[0], order = Array.from(body.rows), heads = Array.from(table.tHead.rows[0].cells);
    const key = (row, i) => row.cells[i].dataset.value ?? row.cells[i].textContent.trim();
    const sort = (i) => {
      const head = heads[i], best = head.dataset.first ?? "ascending", turned = best === "ascending" ? "descending" : "ascending";
      const now = head.getAttribute("aria-sort");
      const next = now === best ? turned : now === turned ? null : best;
      for (const other of heads) other.removeAttribute("aria-sort");
      let sorted = order;
      if (next) {
        head.setAttribute("aria-sort", next);
        const sign = next === "ascending" ? 1 : -1;
        sorted = order.slice().sort((a, b) => {
          const p = key(a, i), q = key(b, i);
          if (p === "" || q === "") return (p === "") - (q === "");  // what is absent stays below
          const numeric = heads[i].dataset.numeric !== undefined;
          return sign * (numeric ? (Number(p) - Number(q) || 0) : p.localeCompare(q, "en"));
        });
      }
      body.append(...sorted);
    };
    heads.forEach((head, i) => head.querySelector("button")?.addEventListener("click", () => sort(i)));
  }

  // ---- one variant at a time
  const chooser = document.getElementById("variant");
  const sections = all("section.variant");
  const choose = (index) => {
    sections.forEach((section, i) => { section.hidden = i !== index; });
    chooser.value = String(index);
  };
  if (chooser) {
    chooser.addEventListener("change", () => choose(Number(chooser.value)));
    const follow = () => {
      const found = /^#variant-(\d+)$/.exec(location.hash);
      if (found && Number(found[1]) < sections.length) {
        choose(Number(found[1]));
        sections[Number(found[1])].scrollIntoView();
      }
    };
    window.addEventListener("hashchange", follow);
    choose(0);
    follow();
  }

  // ---- the difference of two scenarios
  const source = document.getElementById("scenarios");
  if (source) {
    const { fields, values: of, work } = JSON.parse(source.textContent);
    const [left, right] = ["left", "right"].map((side) => document.getElementById("difference-" + side));
    const body = document.querySelector("#difference-table tbody");
    const show = () => {
      const a = of[Number(left.value)], b = of[Number(right.value)];
      body.replaceChildren(...fields.flatMap((field, i) => {
        if (a[i] === b[i]) return [];
        const row = document.createElement("tr");
        for (const content of [field, a[i], b[i]]) {
          const cell = document.createElement("td");
          cell.className = "text";
          cell.textContent = content;
          row.append(cell);
        }
        return [row];
      }));
      document.getElementById("difference-none").hidden = body.rows.length > 0;
      document.getElementById("difference-work").textContent = work[Number(left.value)][Number(right.value)];
    };
    left.addEventListener("change", show);
    right.addEventListener("change", show);
    show();
  }
})();
