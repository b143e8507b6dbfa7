// What is known, what the reader has chosen, and what follows from both.

const data = JSON.parse(byId("data").textContent);
const images = data.images.map((image, index) => ({ ...image, index }));
const ascending = (numbers) => Float64Array.from(numbers).sort();
const scoresOf = (label) =>
  ascending([
    ...images.filter((image) => image.label === label).map((image) => image.score),
    ...data.others.filter((other) => other[1] === label).map((other) => other[0]),
  ]);
const good = scoresOf(0);
const defective = scoresOf(1);
const unknown = scoresOf(null);
const calibration = ascending(data.calibration);
const several = data.score === "score"; // products, whose raw scores cannot be compared
const labelled = good.length + defective.length > 0;
const total = good.length + defective.length + unknown.length;
const ends = [good, defective, unknown, calibration].filter((scores) => scores.length);
const lowest = Math.min(...ends.map((scores) => scores[0]));
const highest = Math.max(...ends.map((scores) => scores[scores.length - 1]));
const room = 0.01 * (highest - lowest || Math.abs(highest) || 1);
const range = [lowest - room, highest + room];

const state = {
  threshold: data.start,
  sort: "highest",
  verdict: "",
  kind: "",
};

// The number of scores that pass, given that all after the first one do.
function passing(scores, passes) {
  let low = 0;
  let high = scores.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (passes(scores[middle])) high = middle;
    else low = middle + 1;
  }
  return scores.length - low;
}

// A score that is tied with the threshold is not above it.
const above = (scores, threshold) => passing(scores, (score) => score > threshold);
const reaching = (scores, threshold) => passing(scores, (score) => score >= threshold);

const isAnomalous = (image) => image.score > state.threshold;
const isWrong = (image) => image.label !== null && isAnomalous(image) !== (image.label === 1);

function verdictOf(image) {
  if (!isWrong(image)) return isAnomalous(image) ? "anomalous" : "normal";
  return isAnomalous(image) ? "false alarm" : "missed";
}

// The share of good images that look at least as unusual, split-conformal.
const pValue = (score) => (1 + reaching(calibration, score)) / (calibration.length + 1);

function counts() {
  const t = state.threshold;
  const found = above(defective, t);
  const alarms = above(good, t);
  return {
    found,
    alarms,
    missed: defective.length - found,
    passed: good.length - alarms,
    anomalous: found + alarms + above(unknown, t),
    calibration: above(calibration, t),
  };
}
