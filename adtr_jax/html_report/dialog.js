// One image in large, with its regions.

let open = null;

function outlines(image) {
  const [width, height] = image.size;
  const svg = draw("svg", { class: "boxes", viewBox: `0 0 ${width} ${height}`, "aria-hidden": true });
  for (const [left, top, right, bottom] of image.boxes) {
    const box = { x: left, y: top, width: right - left, height: bottom - top };
    svg.append(draw("rect", { ...box, class: "dark" }), draw("rect", box));
  }
  return svg;
}

function describe(image) {
  const words = [verdictOf(image), `${several ? "" : "raw "}score ${short(image.score)}`];
  if (image.product) words.push(image.product);
  if (calibration.length && !several) words.push(`p = ${Number(pValue(image.score).toPrecision(2))}`);
  if (image.defect) words.push(image.label ? `defect: ${image.defect}` : "a good image");
  if (image.size) words.push(plural(image.boxes.length, "region"), image.size.join(" × "));
  return words.join(" · ");
}

function openLarge(image) {
  open = image;
  const dialog = byId("large");
  const box = layers(image);
  if (image.picture) fill(box, image);
  if (image.size) box.append(outlines(image));
  dialog.querySelector(".layers").replaceWith(box);
  byId("name").textContent = image.path;
  byId("verdicts").textContent = describe(image);
  if (!dialog.open) dialog.showModal();
}

function step(by) {
  const next = listed[listed.indexOf(open) + by];
  if (next) openLarge(next);
}

function dialogKeys() {
  const dialog = byId("large");
  byId("before").addEventListener("click", () => step(-1));
  byId("after").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => dialog.close());
  byId("outlines").addEventListener("change", (event) => {
    dialog.classList.toggle("plain", !event.target.checked);
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.target.type === "range") return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });
  dialog.addEventListener("close", () => open?.card.firstChild.focus());
}
