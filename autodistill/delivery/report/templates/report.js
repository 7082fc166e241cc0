"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const byId = (id) => document.getElementById(id);
  const config = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  const drawn = [];

  // -- colours: Plotly cannot read the page's CSS variables ----------------------------------------------------------
  const PAPER = { "--ink": "#000000", "--grid": "#e3e3e3", "--quiet": "#444444", "--bg": "#ffffff" };
  let printing = false; // the page's colours change only after the beforeprint event
  const css = (name) => printing ? PAPER[name] : getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  function themed(layout) {
    const out = structuredClone(layout);
    const [ink, grid, line, bg] = ["--ink", "--grid", "--quiet", "--bg"].map(css);
    Object.assign(out, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" });
    out.font = { ...out.font, color: ink };
    out.hoverlabel = { ...out.hoverlabel, bgcolor: bg, bordercolor: line, font: { color: ink } };
    if (innerWidth < 640 && !printing) out.title = { text: "" }; // the section has the same title, and the legend needs the space
    out.modebar = { orientation: "v", bgcolor: "rgba(0,0,0,0)", color: line, activecolor: ink };
    for (const axis of new Set(["xaxis", "yaxis", ...Object.keys(out).filter((key) => /^[xy]axis\d+$/.test(key))])) {
      out[axis] = { ...out[axis], gridcolor: grid, zerolinecolor: grid, linecolor: line, automargin: true };
    }
    for (const note of out.annotations || []) {
      note.font = { ...note.font, color: ink };
      if (note.bgcolor) note.bgcolor = `${bg}c0`;
    }
    return out;
  }
  function outlined(traces) {
    const bg = css("--bg");
    return traces.map((trace) => {
      if (!trace.marker || !trace.marker.line) return trace;
      return { ...trace, marker: { ...trace.marker, line: { ...trace.marker.line, color: bg } } };
    });
  }

  // -- the front, with selectable axes -----------------------------------------------------------------------------------
  const frontBox = byId("front-plot");
  const front = data.figures.front;
  const state = front ? { x: front.layout.meta.x, y: front.layout.meta.y, size: front.layout.meta.size } : null;

  function column(name) { return front.layout.meta.axes.findIndex((axis) => axis.name === name); }
  function axisOf(name) { return front.layout.meta.axes[column(name)]; }
  function stairs(rows, x, y) {
    const sx = axisOf(x).better === "higher" ? -1 : 1, sy = axisOf(y).better === "higher" ? -1 : 1;
    const points = rows.map((row) => [row[column(x) + 1], row[column(y) + 1]]).sort((a, b) => sx * (a[0] - b[0]) || sy * (a[1] - b[1]));
    const out = [];
    for (const point of points) if (!out.length || sy * point[1] < sy * out[out.length - 1][1]) out.push(point);
    return out;
  }
  function frontTraces() {
    const [small, large] = front.layout.meta.diameters;
    const students = front.data.filter((t) => ["front", "dominated"].includes(t.meta.role)).flatMap((t) => t.customdata || []);
    const top = state.size ? Math.max(0, ...students.map((row) => row[column(state.size) + 1] || 0)) : 0;
    const members = (front.data.find((t) => t.meta.role === "front") || {}).customdata || [];
    return front.data.flatMap((trace) => {
      const role = trace.meta.role;
      if (role === "stairs") {
        const best = stairs(members, state.x, state.y);
        return [{ ...trace, x: best.map((p) => p[0]), y: best.map((p) => p[1]) }];
      }
      const rows = trace.customdata || [];
      if (role === "verified") return state.y === front.layout.meta.y ? [{ ...trace, x: rows.map((row) => row[column(state.x) + 1]) }] : [];
      const copy = { ...trace, x: rows.map((row) => row[column(state.x) + 1]), y: rows.map((row) => row[column(state.y) + 1]) };
      if (role !== "teacher" && role !== "form") {
        const ring = role === "knee" ? front.layout.meta.ring : 0;
        const size = rows.map((row) => ring + (top > 0 ? Math.max(small, large * Math.sqrt(Math.max(0, row[column(state.size) + 1]) / top)) : 12));
        copy.marker = { ...trace.marker, size };
      }
      return [copy];
    });
  }
  function shown(name) {
    const rows = front.data.filter((t) => ["front", "dominated"].includes(t.meta.role)).flatMap((t) => t.customdata || []);
    return rows.map((row) => row[column(name) + 1]);
  }
  function ticks(name) {
    const star = front.data.find((t) => t.meta.role === "teacher");
    const seen = [...shown(name), star ? star.customdata[0][column(name) + 1] : 0].filter((value) => value > 0);
    if (!seen.length) return {};
    const low = Math.min(...seen), high = Math.max(...seen), ratio = high / low, tickvals = [];
    if (ratio > 1.02 && ratio < 1.5) return {};
    const steps = [[1e4, [1]], [12, [1, 2, 5]], [3.5, [1, 2, 3, 5, 7]], [1.5, [1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9]], [0, [1, 2, 5]]]
      .find(([least]) => ratio >= least)[1];
    for (let power = Math.floor(Math.log10(low)) - 1; power <= Math.ceil(Math.log10(high)) + 1; power++) {
      for (const step of steps) tickvals.push(Number(`${step}e${power}`));
    }
    const words = (value) => {
      for (const [limit, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
        if (value >= limit) return `${Number((value / limit).toPrecision(3))}${letter}`;
      }
      return String(value);
    };
    return { tickvals, ticktext: tickvals.map(words) };
  }
  function frontLayout() {
    const same = state.x === front.layout.meta.x && state.y === front.layout.meta.y;
    const layout = structuredClone(front.layout);
    if (!same) {
      layout.annotations = []; delete layout.yaxis.range; delete layout.xaxis.range;
    }
    const words = { lower: " ← better", higher: " better →" };
    for (const [key, name, box] of [["xaxis", state.x, byId("log-x")], ["yaxis", state.y, byId("log-y")]]) {
      const axis = axisOf(name);
      layout[key].title = { text: axis.label + (words[axis.better] || "") };
      const log = box.checked;
      if (log !== (layout[key].type === "log")) delete layout[key].range;
      layout[key].type = log ? "log" : "linear";
      delete layout[key].tickvals; delete layout[key].ticktext;
      if (log) Object.assign(layout[key], ticks(name));
    }
    const teacher = front.data.find((t) => t.meta.role === "teacher");
    const height = teacher ? teacher.customdata[0][column(state.y) + 1] : null;
    layout.shapes = height === null || height === undefined ? [] : [{ ...(front.layout.shapes || [{ type: "line", xref: "paper", x0: 0, x1: 1, line: { color: "#d55e00", width: 1, dash: "dash" } }])[0], y0: height, y1: height }];
    return layout;
  }
  function drawFront() { Plotly.react(frontBox, outlined(frontTraces()), themed(frontLayout()), config); }
  function fill(select, chosen, none) {
    if (none) select.add(new Option(none, ""));
    for (const axis of front.layout.meta.axes) select.add(new Option(axis.name, axis.name, false, axis.name === chosen));
    select.value = chosen;
  }
  function setUpFront() {
    fill(byId("axis-x"), state.x); fill(byId("axis-y"), state.y); fill(byId("axis-size"), state.size, "equal");
    byId("log-x").checked = front.layout.xaxis.type === "log";
    byId("log-y").checked = front.layout.yaxis.type === "log";
    for (const [id, key, box] of [["axis-x", "x", "log-x"], ["axis-y", "y", "log-y"], ["axis-size", "size", null]]) {
      byId(id).addEventListener("change", (event) => {
        state[key] = event.target.value;
        if (box) byId(box).checked = Boolean(axisOf(state[key]).log) && shown(state[key]).every((value) => value > 0);
        drawFront();
      });
    }
    for (const id of ["log-x", "log-y"]) byId(id).addEventListener("change", drawFront);
    drawFront();
    let at = -1;
    frontBox.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const trace = frontBox.data.findIndex((t) => t.meta && t.meta.role === "front");
      if (!step || trace < 0 || !frontBox.data[trace].x.length) return;
      event.preventDefault();
      const xs = frontBox.data[trace].x, order = [...xs.keys()].sort((a, b) => xs[a] - xs[b]);
      at = (at + step + order.length) % order.length;
      Plotly.Fx.hover(frontBox, [{ curveNumber: trace, pointNumber: order[at] }]);
      const words = frontBox.data[trace].hovertext[order[at]].replace(/<br>/g, ", ").replace(/<[^>]*>/g, "");
      byId("front-said").textContent = new DOMParser().parseFromString(words, "text/html").body.textContent;
    });
  }

  // -- the other figures ----------------------------------------------------------------------------------------------------
  function drawAll(first) {
    if (typeof Plotly === "undefined") return;
    if (front && frontBox) first ? setUpFront() : drawFront();
    for (const box of document.querySelectorAll(".plot[data-figure]")) {
      const figure = data.figures[box.dataset.figure];
      if (!figure || box === frontBox) continue;
      if (figure.layout.height) box.style.height = `${figure.layout.height}px`;
      Plotly.react(box, outlined(figure.data), themed(figure.layout), config);
      if (first) drawn.push(box);
    }
  }
  drawAll(true);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(false));
  function sized(width) {
    for (const box of document.querySelectorAll(".plot")) {
      const font = width && box.dataset.figure === "parallel-plot" ? { "xaxis.tickfont.size": 7 } : {};
      if (box.data) Plotly.relayout(box, width ? { width, autosize: false, ...font } : { width: null, autosize: true });
    }
  }
  addEventListener("beforeprint", () => { printing = true; drawAll(false); sized(690); });
  addEventListener("afterprint", () => { printing = false; sized(null); drawAll(false); });

  // -- best within a bound ------------------------------------------------------------------------------------------------------
  const bound = byId("bound");
  if (bound) {
    const sign = data.first.direction === "maximize" ? -1 : 1;
    const answer = () => {
      const limit = Number(bound.value);
      const fitting = data.candidates.filter((c) => c.cost !== null && c.cost <= limit);
      const best = fitting.sort((a, b) => sign * (a.rank - b.rank) || a.cost - b.cost)[0];
      const put = (name, text) => Object.assign(document.createElement(name), { textContent: text });
      const place = byId("bound-answer");
      if (!best) return place.replaceChildren(put("p", "No student satisfies this bound."));
      const text = `Trial ${best.name}, ${best.student}${best.distillation ? ", " + best.distillation : ""}. ${best.reached}`;
      if (best.name === data.best) return place.replaceChildren(put("p", `${text} It is the best of all, as above.`));
      const doubts = document.createElement("dl");
      doubts.append(put("dt", "Gain from distillation"), put("dd", best.gain), put("dt", "How certain this is"), put("dd", best.sure));
      place.replaceChildren(put("p", text), doubts);
    };
    bound.addEventListener("input", answer);
    answer();
  }
  document.documentElement.dataset.ready = "true";
})();
