// The histogram of the scores and the ROC curve, as SVG, with the threshold in both.

const WIDE = 420;
const HIGH = 290;
const FRAME = { left: 60, right: 14, top: 10, bottom: 40 };
const BINS = 36;
const inner = {
  width: WIDE - FRAME.left - FRAME.right,
  height: HIGH - FRAME.top - FRAME.bottom,
};
const across = (share) => FRAME.left + share * inner.width;
const up = (share) => HIGH - FRAME.bottom - share * inner.height;
const place = (score) => (score - range[0]) / (range[1] - range[0]);

const GROUPS = [
  ["calibration, good", "calibration", calibration],
  ["good", "good", good],
  ["defective", "defective", defective],
  ["images", "good", unknown],
].filter(([, , scores]) => scores.length);

function axes(across_ticks, up_ticks, across_name, up_name) {
  const parts = [draw("path", { class: "axis", d: `M${across(0)} ${up(1)}V${up(0)}H${across(1)}` })];
  for (const [share, text] of across_ticks) {
    parts.push(draw("text", { x: across(share), y: up(0) + 15, "text-anchor": "middle" }, text));
  }
  for (const [share, text] of up_ticks) {
    const y = up(share);
    if (share) parts.push(draw("path", { class: "grid", d: `M${across(0)} ${y}H${across(1)}` }));
    parts.push(draw("text", { x: across(0) - 6, y: y + 4, "text-anchor": "end" }, text));
  }
  const middle = { x: across(0.5), y: HIGH - 4, "text-anchor": "middle" };
  parts.push(draw("text", middle, across_name));
  const turned = `translate(12 ${up(0.5)}) rotate(-90)`;
  parts.push(draw("text", { transform: turned, "text-anchor": "middle" }, up_name));
  return parts;
}

// At most `most` round numbers from low to high.
function ticks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((size) => size >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(i * step);
  return found;
}

function chart(name, parts) {
  const svg = { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": name };
  return draw("svg", svg, ...parts);
}

function binned(scores) {
  const bins = new Array(BINS).fill(0);
  for (const score of scores) {
    bins[Math.min(Math.floor(place(score) * BINS), BINS - 1)] += 1 / scores.length;
  }
  return bins;
}

function histogram() {
  const groups = GROUPS.map(([name, kind, scores]) => [name, kind, binned(scores), scores.length]);
  const top = Math.max(...groups.flatMap(([, , bins]) => bins)) * 1.04;
  const shares = ticks(0, 100 * top, 4).map((n) => [n / 100 / top, `${short(n)} %`]);
  const scores = ticks(...range, 6).map((score) => [place(score), short(score)]);
  const parts = axes(scores, shares, several ? "score" : "raw score", "share of the group");
  groups.forEach(([, kind, bins]) => {
    const steps = bins.map((share, i) => `V${up(share / top)}H${across((i + 1) / BINS)}`);
    const d = `M${across(0)} ${up(0)}${steps.join("")}V${up(0)}`;
    parts.push(draw("path", { class: `area ${kind}`, d }));
  });
  const line = draw("path", { class: "threshold" });
  const svg = chart("Histogram of the scores, as shares of each group", [...parts, line]);
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width * WIDE - FRAME.left) / inner.width;
    const at = Math.min(Math.max(share, 0), 1);
    setThreshold(Number((range[0] + at * (range[1] - range[0])).toPrecision(5)));
  });
  const legend = groups.map(([name, kind, , n]) =>
    make("span", {}, make("i", { class: kind }), `${name} (${whole(n)})`));
  byId("histogram").append(make("p", { class: "legend" }, ...legend), svg);
  return () => {
    const x = across(Math.min(Math.max(place(state.threshold), 0), 1));
    line.setAttribute("d", `M${x} ${up(0)}V${up(1)}`);
  };
}

// False- and true-positive rates at all thresholds, and the area below.
function rates() {
  const points = [[0, 0]];
  let area = 0;
  for (const score of [...new Set([...good, ...defective])].sort((a, b) => b - a)) {
    const last = points[points.length - 1];
    const point = [good, defective].map((scores) => reaching(scores, score) / scores.length);
    area += ((point[0] - last[0]) * (point[1] + last[1])) / 2;
    points.push(point);
  }
  return { points, area };
}

function roc() {
  if (!good.length || !defective.length) return () => {};
  const { points, area } = rates();
  byId("rocbox").hidden = false;
  byId("roctitle").textContent = `ROC: area ${percent(area)}`;
  const at = ([x, y]) => `${across(x)} ${up(y)}`;
  const tick = [0, 0.5, 1].map((share) => [share, `${100 * share} %`]);
  const dot = draw("circle", { class: "dot", r: 5 });
  byId("roc").append(
    chart("ROC curve: defects found against good images rejected", [
      ...axes(tick, tick, "good images rejected", "defects found"),
      draw("path", { class: "grid", d: `M${at([0, 0])}L${at([1, 1])}` }),
      draw("path", { class: "curve", d: `M${points.map(at).join("L")}` }),
      dot,
    ]),
  );
  return () => {
    const { found, alarms } = counts();
    dot.setAttribute("cx", across(alarms / good.length));
    dot.setAttribute("cy", up(found / defective.length));
  };
}
