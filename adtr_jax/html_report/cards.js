// The grid of images: which are in it, in which order, and the way through it by keyboard.

const PRINTED = 240; // images on paper; more would not fit into the memory
const collator = new Intl.Collator("en", { numeric: true });
const ORDERS = {
  highest: (a, b) => b.score - a.score,
  lowest: (a, b) => a.score - b.score,
  nearest: (a, b) => Math.abs(a.score - state.threshold) - Math.abs(b.score - state.threshold),
  wrong: (a, b) => isWrong(b) - isWrong(a) || ORDERS.nearest(b, a),
  path: (a, b) => collator.compare(a.path, b.path),
};
let listed = []; // the images that are shown, in their order

const kindOf = (image) => image.defect || image.product;
const nameOf = (path) => path.split(/[\\/]/).pop() || path;

function makeCard(image) {
  const button = make("button", { type: "button", class: "card", tabindex: "-1" });
  button.dataset.index = image.index;
  button.append(
    make("span", { class: "thumb" }, layers(image)),
    make("span", { class: "file", title: image.path }, nameOf(image.path)),
    make("span", { class: "line" }, make("b"), make("span", {}, image.score.toPrecision(4))),
    ...(kindOf(image) ? [make("span", { class: "kind" }, kindOf(image))] : []),
  );
  image.card = make("li", {}, button);
  watcher.observe(button);
  button.addEventListener("click", () => openLarge(image));
  button.addEventListener("focus", () => rove(button));
}

function mark(image) {
  const verdict = verdictOf(image);
  if (image.verdict === verdict) return;
  image.verdict = verdict;
  image.card.className = verdict.replace(" ", "-");
  image.card.querySelector("b").textContent = verdict;
  const name = `${image.path}: ${verdict}, score ${short(image.score)}`;
  const kind = kindOf(image);
  image.card.firstChild.setAttribute("aria-label", kind ? `${name}, ${kind}` : name);
}

function isListed(image) {
  if (state.kind && kindOf(image) !== state.kind) return false;
  const { verdict } = state;
  if (verdict === "wrong") return isWrong(image);
  if (verdict === "anomalous") return isAnomalous(image);
  if (verdict === "normal") return !isAnomalous(image);
  return !verdict || image.verdict === verdict;
}

// Chooses and sorts the cards anew.
function list() {
  images.forEach(mark);
  listed = images.filter(isListed).sort((a, b) => ORDERS[state.sort](a, b) || a.index - b.index);
  const cards = listed.map((image) => image.card);
  cards.forEach((card, i) => card.classList.toggle("unprinted", i >= PRINTED));
  byId("cards").replaceChildren(...cards);
  const more = listed.length > PRINTED ? `; the first ${PRINTED} are printed` : "";
  byId("shown").replaceChildren(
    `${whole(listed.length)} of ${plural(images.length, "image")}`,
    make("span", { class: "onpaper" }, more),
  );
  if (cards.length) rove(cards[0].firstChild);
}

// One card is reached by Tab, the others from there by the arrow keys.
function rove(button) {
  byId("cards").querySelector("[tabindex='0']")?.setAttribute("tabindex", "-1");
  button.setAttribute("tabindex", "0");
}

function columns() {
  const tops = listed.slice(0, 50).map((image) => image.card.offsetTop);
  return tops.filter((top) => top === tops[0]).length;
}

function walk(event) {
  const at = listed.findIndex((image) => image.card.contains(event.target));
  const to = {
    ArrowLeft: () => at - 1,
    ArrowRight: () => at + 1,
    ArrowUp: () => at - columns(),
    ArrowDown: () => at + columns(),
    Home: () => 0,
    End: () => listed.length - 1,
  }[event.key]?.();
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  listed[to]?.card.firstChild.focus();
}
