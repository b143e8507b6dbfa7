// The page: filled once, and kept up to date with what the reader chooses.

const redraw = [];

function rateOf(name, part, all) {
  return [name, all ? percent(part / all) : "–", `${whole(part)} of ${whole(all)}`];
}

function currentRates() {
  const now = counts();
  const rows = [];
  if (labelled) {
    rows.push(rateOf("Precision", now.found, now.found + now.alarms));
    rows.push(rateOf("Recall", now.found, defective.length));
    rows.push(rateOf("False alarms", now.alarms, good.length));
  }
  if (calibration.length) {
    const n = calibration.length + 1;
    rows.push(rateOf("False alarms, calibration", now.calibration, calibration.length));
    if (several) return rows; // each product has a promise of its own
    byId("note").hidden = false;
    rows.push(["False alarms, promised", percent((now.calibration + 1) / n), `${now.calibration + 1} of ${n}`]);
  }
  return rows;
}

function confusion() {
  const now = counts();
  const row = (name, anomalous, normal) =>
    make("tr", {}, make("th", { scope: "row" }, name), ...[anomalous, normal].map(([n, kind]) =>
      make("td", { class: n && kind ? "bad" : "" }, whole(n), make("small", {}, kind))));
  const heads = ["anomalous", "normal"].map((name) => make("th", { scope: "col" }, name));
  const rows = labelled
    ? [row("defective", [now.found, ""], [now.missed, "missed"]),
       row("good", [now.alarms, "false alarms"], [now.passed, ""])]
    : [row("images", [now.anomalous, ""], [total - now.anomalous, ""])];
  byId("confusion").replaceChildren(make("tr", {}, make("td"), ...heads), ...rows);
}

function summary() {
  const now = counts();
  const words = labelled
    ? [`${whole(now.found)} of ${plural(defective.length, "defect")} found`,
       `${whole(now.alarms)} of ${whole(good.length)} good rejected`]
    : [`${whole(now.anomalous)} of ${plural(total, "image")} anomalous`];
  if (calibration.length) {
    const share = percent(now.calibration / calibration.length);
    words.push(`${share} of the calibration's good images rejected`);
  }
  return words.join(" · ");
}

const speak = later(400, () => {
  byId("spoken").textContent = `Threshold ${short(state.threshold)}: ${summary()}`;
});
const relist = later(200, list);

function setThreshold(threshold) {
  state.threshold = threshold;
  byId("threshold").value = Math.round(1000 * place(threshold));
  update();
}

function update() {
  const { threshold } = state;
  byId("exact").value = short(threshold);
  byId("threshold").setAttribute("aria-valuetext", short(threshold));
  byId("reset").disabled = threshold === data.start;
  byId("summary").textContent = summary();
  confusion();
  byId("rates").replaceChildren(...currentRates().map(([name, share, parts]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, share, make("small", {}, parts)))));
  redraw.forEach((draw) => draw());
  images.forEach(mark);
  speak();
  // While the slider moves the cards stay where they are.
  if (state.verdict || state.sort === "nearest" || state.sort === "wrong") relist();
}

function about() {
  if (byId("report").parentElement === document.body) { // not inside of a notebook's page
    document.title = `${data.title} – anomaly report`;
  }
  byId("title").textContent = data.title;
  const parts = data.model ? [`Model ${data.model}`] : [];
  parts.push(plural(total, "image"));
  if (labelled) parts.push(`${whole(good.length)} good, ${whole(defective.length)} defective`);
  if (data.errors.length) parts.push(`${whole(data.errors.length)} could not be read`);
  byId("about").textContent = `${parts.join(" · ")}. Threshold at the start: ${data.origin}.`;
  if (data.others.length) {
    byId("limited").hidden = false;
    byId("limited").textContent =
      `Of ${whole(total)} images the ${whole(images.length)} with the highest scores, the lowest ` +
      "scores, and scores nearest to the threshold at the start are shown. All are counted.";
  }
  for (const [path, reason] of data.errors) {
    byId("errors").hidden = false;
    byId("errors").querySelector("ul").append(make("li", {}, make("code", {}, path), ` ${reason}`));
  }
  for (const [heading, pairs] of data.facts) {
    if (!pairs.length) continue;
    const list = pairs.map(([name, value]) =>
      make("div", {}, make("dt", {}, name), make("dd", {}, value)));
    const long = pairs.some(([, value]) => value.length > 30);
    byId("facts").append(make("h2", {}, heading), make("dl", { class: long ? "long" : "" }, ...list));
  }
}

function choices() {
  const kinds = [...new Set(images.map(kindOf).filter(Boolean))];
  for (const kind of kinds.sort(collator.compare)) {
    byId("kind").append(make("option", { value: kind }, kind));
  }
  byId("kind").parentElement.hidden = !kinds.length;
  if (!labelled) {
    for (const value of ["wrong", "missed", "false alarm"]) {
      document.querySelectorAll(`#report option[value="${value}"]`).forEach((option) => option.remove());
    }
  }
  for (const name of ["sort", "verdict", "kind"]) {
    byId(name).addEventListener("change", (event) => {
      state[name] = event.target.value;
      list();
    });
  }
  const sliders = document.querySelectorAll("#report .opacity");
  for (const slider of sliders) {
    slider.addEventListener("input", () => setOpacity(slider.value, sliders));
  }
}

function setOpacity(value, sliders) {
  const root = byId("report");
  root.style.setProperty("--opacity", value);
  root.classList.toggle("clear", Number(value) === 0); // the image in its own colours
  for (const slider of sliders) slider.value = value;
}

function control() {
  byId("threshold").addEventListener("input", (event) => {
    const share = Number(event.target.value) / 1000;
    state.threshold = Number((range[0] + share * (range[1] - range[0])).toPrecision(5));
    update();
  });
  byId("exact").addEventListener("change", (event) => {
    if (event.target.value !== "") setThreshold(Number(event.target.value));
  });
  byId("reset").addEventListener("click", () => setThreshold(data.start));
}

about();
redraw.push(histogram(), roc());
images.forEach(makeCard);
choices();
control();
dialogKeys();
byId("cards").addEventListener("keydown", walk);
addEventListener("beforeprint", () => {
  for (const image of listed.slice(0, PRINTED)) fill(image.card.querySelector(".layers"), image);
});
setThreshold(state.threshold);
list();
