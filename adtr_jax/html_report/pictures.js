// Images are decoded when they come into view, and let go of when they are far from it.

const AHEAD = "500px";

// The two layers of an image, empty; `fill` puts the pictures in.
function layers(image) {
  const box = make("div", { class: "layers" });
  if (image.size) box.style.setProperty("--ratio", image.size[0] / image.size[1]);
  if (!image.picture) {
    box.append(make("span", { class: "none" }, "no picture"));
    return box;
  }
  const alt = image.layered ? image.path : `${image.path}, with its score map`;
  box.append(make("img", { class: "photo", alt, decoding: "async" }));
  if (image.layered) box.append(make("img", { class: "colours", alt: "", decoding: "async" }));
  return box;
}

function fill(box, image) {
  const kinds = ["jpeg", "png"];
  const parts = byId(`picture${image.index}`).textContent.split(" ");
  box.querySelectorAll("img").forEach((element, i) => {
    if (element.hasAttribute("src")) return;
    element.src = `data:image/${kinds[i]};base64,${parts[i]}`;
  });
}

function empty(box) {
  for (const element of box.querySelectorAll("img")) element.removeAttribute("src");
}

const watcher = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const image = images[target.dataset.index];
      const box = target.querySelector(".layers");
      if (isIntersecting) fill(box, image);
      else empty(box);
    }
  },
  { rootMargin: AHEAD },
);
