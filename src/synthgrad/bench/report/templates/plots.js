// The plots. Their numbers stand in the page as JSON; what is shown of them is decided here: which
// arms, iterations or seconds, light or dark.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const shown = { x: "iteration", hidden: new Set() };
const touch = matchMedia("(pointer: coarse)").matches;

const ERROR_TICKS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 90];
const TENS = [10, 20, 30, 40, 50, 60, 70, 80, 90];
const LOSS_TICKS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10];
const TIME_TICKS = [-3, -2, -1, 0, 1, 2, 3, 4, 5].flatMap((power) =>
  [1, 2, 5].map((step) => Number(`${step}e${power}`)));
const RATIO_TICKS = [0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 20, 50];
const X_TITLES = { iteration: "iterations", seconds: "training seconds" };
const ROW_HEIGHT = 46;
const FONT = getComputedStyle(document.body).fontFamily;

// The page's colors in the theme that is on, by the names of their custom properties.
function readColors() {
  const probe = document.body.appendChild(document.createElement("span"));
  const names = ["ink", "muted", "line", "ground", "per-iteration", "per-update"];
  const colors = names.map((name) => {
    probe.style.color = `var(--${name})`;
    return [name, getComputedStyle(probe).color];
  });
  probe.remove();
  return Object.fromEntries(colors);
}

let colors = readColors();

const armColor = (arm) => (isDark() ? arm.style.dark : arm.style.light);
const armsShown = (arms) => arms.filter((arm) => !shown.hidden.has(arm.arm));

// Plotly reads a little HTML in every text; a label is to be read as it is.
const asText = (text) =>
  String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const number = (value, digits = 3) => Number(value.toPrecision(digits)).toLocaleString("en-US");

function baseLayout() {
  const { ink, muted, line, ground } = colors;
  const axis = () => ({
    gridcolor: line,
    linecolor: line,
    zeroline: false,
    title: { font: { size: 12, color: muted }, standoff: 8 },
  });
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: FONT, size: 12, color: muted },
    margin: { l: 44, r: 12, t: 10, b: 40 },
    hovermode: "closest",
    hoverlabel: { bgcolor: ground, bordercolor: line, font: { color: ink, size: 13 }, align: "left" },
    showlegend: false,
    dragmode: touch ? false : "zoom", // a finger scrolls the page
    xaxis: axis(),
    yaxis: axis(),
  };
}

function draw(id, traces, layout) {
  const options = { displayModeBar: false, responsive: true };
  Plotly.react(id, traces, layout, options);
}

// One faint trace with all seeds, the lines kept apart by gaps, and one with the median.
function seriesTraces(arm, series, x, metric, height) {
  const color = armColor(arm);
  const faint = { x: [], y: [], text: [] };
  const describe = (who, columns, i) =>
    `<b>${asText(arm.label)}</b>, ${who}<br>iteration ${number(columns.iteration[i], 12)}` +
    (columns.seconds && columns.seconds[i] !== null ? `, ${number(columns.seconds[i])} s` : "") +
    `<br>${metric.replace("_", " ")} ${number(columns[metric][i], 4)}`;
  const add = (trace, who, columns) => {
    columns[metric].forEach((value, i) => {
      // Against the logarithm of seconds, which has no zero, a curve begins after the start.
      if (x === "seconds" && columns.iteration[i] === 0) return;
      trace.x.push(columns[x][i]);
      trace.y.push(value === null ? null : height(value));
      trace.text.push(value === null ? "" : describe(who, columns, i));
    });
  };
  for (const seed of series.seeds) {
    add(faint, `seed ${seed.seed}`, seed);
    faint.x.push(null), faint.y.push(null), faint.text.push("");
  }
  const median = { x: [], y: [], text: [] };
  add(median, "median", series.median);
  const common = { type: "scatter", mode: "lines+markers", hovertemplate: "%{text}<extra></extra>" };
  return [
    { ...common, ...faint, opacity: 0.25, line: { color, width: 0.8 }, marker: { color, size: 3 } },
    {
      ...common,
      ...median,
      line: { color, width: 2, dash: arm.style.dash },
      marker: { color, size: 8, symbol: arm.style.symbol, maxdisplayed: 6 },
    },
  ];
}

// Accuracy is drawn on a logarithmic axis of the error, so 97 and 98 % are as far apart as 50 and 67.
function drawCurves(metric) {
  const isAccuracy = metric.endsWith("accuracy");
  const height = isAccuracy ? (value) => Math.max(100 - value, ERROR_TICKS[0]) : (value) => value;
  const layout = baseLayout();
  layout.xaxis.title.text = X_TITLES[shown.x];
  Object.assign(layout.xaxis, shown.x === "seconds"
    ? { type: "log", tickvals: TIME_TICKS, ticktext: TIME_TICKS.map(String) }
    : { rangemode: "tozero" });
  const traces = armsShown(data.curves.arms).flatMap((arm) =>
    seriesTraces(arm, arm, shown.x, metric, height));
  const heights = traces.flatMap((trace) => trace.y).filter((value) => value !== null);
  const [least, most] = [Math.min(...heights), Math.max(...heights)];
  if (isAccuracy) {
    const ticks = least < 10 ? ERROR_TICKS : TENS; // tens where all that is drawn is below 90 %
    Object.assign(layout.yaxis, {
      type: "log",
      autorange: "reversed",
      tickvals: ticks,
      ticktext: ticks.map((error) => String(100 - error)),
    });
  } else if (most > 4 * least) {
    Object.assign(layout.yaxis, {
      type: "log",
      tickvals: LOSS_TICKS,
      ticktext: LOSS_TICKS.map(String),
    });
  }
  draw(`plot-${metric}`, traces, layout);
}

// The same range at every interface, so that interfaces can be compared.
function alignmentRange(metric) {
  const values = data.alignment.arms
    .flatMap((arm) => Object.values(arm.interfaces))
    .flatMap((series) => series.median[metric])
    .filter((value) => value !== null);
  return metric === "cosine"
    ? [Math.min(-0.05, ...values), 1.02]
    : [0, Math.min(3, 1.05 * Math.max(1, ...values))];
}

function drawAlignment(name, position) {
  for (const [metric, level] of [["cosine", 0], ["relative_error", 1]]) {
    const layout = baseLayout();
    layout.xaxis.title.text = X_TITLES.iteration;
    layout.xaxis.rangemode = "tozero";
    layout.yaxis.range = alignmentRange(metric);
    layout.shapes = [horizontalLine(level)];
    const traces = armsShown(data.alignment.arms)
      .filter((arm) => arm.interfaces[name])
      .flatMap((arm) =>
        seriesTraces(arm, arm.interfaces[name], "iteration", metric, (value) => value));
    draw(`plot-${metric}-${position}`, traces, layout);
  }
}

const reference = () => ({ type: "line", layer: "below", line: { color: colors.muted, width: 1.4 } });
const horizontalLine = (y) => ({ ...reference(), xref: "paper", x0: 0, x1: 1, y0: y, y1: y });
const verticalLine = (x) => ({ ...reference(), yref: "paper", y0: 0, y1: 1, x0: x, x1: x });

// A row for every arm, its name above the row, where it has room on a phone too.
function rowsLayout(arms, title) {
  const layout = baseLayout();
  layout.height = ROW_HEIGHT * arms.length + 60;
  layout.margin.l = 12;
  Object.assign(layout.xaxis, {
    type: "log",
    tickvals: RATIO_TICKS,
    ticktext: RATIO_TICKS.map(String),
    title: { ...layout.xaxis.title, text: title },
  });
  Object.assign(layout.yaxis, {
    range: [arms.length - 0.5, -0.75],
    showgrid: false,
    showticklabels: false,
    fixedrange: true,
  });
  layout.shapes = [verticalLine(1)];
  layout.annotations = arms.map((arm, row) => ({
    text: asText(arm.label),
    xref: "paper",
    x: 0,
    y: row - 0.42,
    xanchor: "left",
    showarrow: false,
    font: { color: colors.ink, size: 12 },
  }));
  return layout;
}

function drawTiming() {
  const arms = armsShown(data.timing.arms);
  const traces = arms.flatMap((arm, row) => {
    const color = armColor(arm);
    const [low, high] = arm.interval ?? [arm.median, arm.median];
    return [
      {
        type: "scatter",
        mode: "markers",
        x: arm.ratios,
        y: arm.rounds.map((round) => row + (((round * 0.618) % 1) - 0.5) * 0.3),
        text: arm.rounds.map(
          (round, i) => `<b>${asText(arm.label)}</b><br>round ${round}: ${number(arm.ratios[i], 4)}`),
        hovertemplate: "%{text}<extra></extra>",
        marker: { color, size: 4, opacity: 0.22 },
      },
      {
        type: "scatter",
        mode: "markers",
        x: [arm.median],
        y: [row],
        error_x: {
          type: "data",
          symmetric: false,
          array: [(high ?? arm.median) - arm.median],
          arrayminus: [arm.median - (low ?? arm.median)],
          color,
          thickness: 2,
          width: 6,
        },
        text: [`<b>${asText(arm.label)}</b><br>median ${number(arm.median, 4)}`],
        hovertemplate: "%{text}<extra></extra>",
        marker: { color, size: 11, symbol: arm.style.symbol, line: { width: 1.5, color: colors.ground } },
      },
    ];
  });
  draw("plot-timing", traces, rowsLayout(arms, "seconds per iteration over backprop's, each round"));
}

function drawAccounting() {
  const arms = armsShown(data.accounting.arms);
  const rows = arms.map((_, row) => row);
  const trace = (key, title, marker) => ({
    type: "scatter",
    mode: "markers",
    x: arms.map((arm) => arm[key]),
    y: rows,
    text: arms.map((arm) => `<b>${asText(arm.label)}</b><br>${title}: ${number(arm[key])}`),
    hovertemplate: "%{text}<extra></extra>",
    marker,
  });
  const bridges = arms.map((arm, row) => ({
    ...reference(), x0: arm.per_iteration, x1: arm.per_stage_update, y0: row, y1: row,
  }));
  const layout = rowsLayout(arms, "time over backprop's; left of 1 is less time");
  layout.shapes.push(...bridges);
  draw("plot-accounting", [
    trace("per_iteration", "per iteration", { color: colors["per-iteration"], size: 13, symbol: "circle-open", line: { width: 2.5 } }),
    trace("per_stage_update", "per stage update", { color: colors["per-update"], size: 9, symbol: "diamond" }),
  ], layout);
}

function drawAll() {
  if (data.curves) {
    ["val_accuracy", "train_accuracy", "val_loss", "train_loss"].forEach(drawCurves);
  }
  if (data.alignment) data.alignment.interfaces.forEach(drawAlignment);
  if (data.timing) drawTiming();
  if (data.accounting) drawAccounting();
}

for (const radio of document.querySelectorAll("input[name=x]")) {
  radio.addEventListener("change", () => {
    shown.x = radio.value;
    drawAll();
  });
}

// An arm's button stands in the legend of several sections: they are pressed together.
for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const arm = button.dataset.arm;
    if (!shown.hidden.delete(arm)) shown.hidden.add(arm);
    for (const twin of document.querySelectorAll(".legend button")) {
      if (twin.dataset.arm === arm) twin.setAttribute("aria-pressed", String(!shown.hidden.has(arm)));
    }
    drawAll();
  });
}

document.addEventListener("themechange", () => {
  colors = readColors();
  drawAll();
});
drawAll();
