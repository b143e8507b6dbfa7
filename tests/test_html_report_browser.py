"""The report in a real browser: what the reader does, and sees."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_folders import (
    HOSTILE,
    HOSTILE_KIND,
    data_of,
    pictures_of,
    write_evaluation,
    write_predictions,
)

pytest.importorskip("selenium")
from browser import chromium
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.common.print_page_options import PrintOptions
from selenium.webdriver.support.ui import Select, WebDriverWait

from adtr_jax.html_report import page


@pytest.fixture(scope="module")
def window():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of an evaluation, with its report."""
    folder = tmp_path_factory.mktemp("evaluation") / "run"
    write_evaluation(folder)
    page.write(folder)
    return folder


@pytest.fixture
def report(window, run):
    """The evaluation's report, just opened; a test may cause no message of the browser's."""
    window.get((run / "report.html").as_uri())
    yield window
    assert [entry for entry in window.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert window.execute_script("return window.harmed") is None


def by_id(window, name):
    return window.find_element(By.ID, name)


def numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def files(window) -> list[str]:
    """The paths of the cards, in their order."""
    script = (  # half a surrogate pair cannot be handed over
        "return [...document.querySelectorAll('#cards .file')].map((e) => e.title.toWellFormed())"
    )
    return window.execute_script(script)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def expected(folder: Path, threshold: float) -> dict[str, list[int]]:
    """What the report must count, from the files that evaluate wrote."""
    rows = table(folder)
    scores = np.array([float(row["score"]) for row in rows])
    defective = np.array([row["label"] == "1" for row in rows])
    above = scores > threshold
    card = json.loads((folder / "model_card.json").read_text())
    calibration = np.array(card["calibration"]) > threshold
    found, alarms = int((above & defective).sum()), int((above & ~defective).sum())
    n = len(calibration)
    return {
        "defective": [found, int(defective.sum()) - found],
        "good": [alarms, int((~defective).sum()) - alarms],
        "Precision": [found, found + alarms],
        "Recall": [found, int(defective.sum())],
        "False alarms": [alarms, int((~defective).sum())],
        "False alarms, calibration": [int(calibration.sum()), n],
        "False alarms, promised": [int(calibration.sum()) + 1, n + 1],
    }


def counted(window) -> dict[str, list[int]]:
    """What the report shows."""
    found = {}
    for row in window.find_elements(By.CSS_SELECTOR, "#confusion tr")[1:]:
        name = row.find_element(By.TAG_NAME, "th").text
        found[name] = [numbers(c.text)[0] for c in row.find_elements(By.TAG_NAME, "td")]
    for row in window.find_elements(By.CSS_SELECTOR, "#rates div"):
        name = row.find_element(By.TAG_NAME, "dt").text
        share = row.find_element(By.TAG_NAME, "dd").text.split("\n")[0]
        part, whole = numbers(row.find_element(By.TAG_NAME, "small").text)
        found[name] = [part, whole]
        if whole:
            assert share.startswith(f"{100 * part / whole:.1f} %")
    return found


def test_the_slider_counts_what_the_csv_says(report, run):
    slider, exact = by_id(report, "threshold"), by_id(report, "exact")
    card = json.loads((run / "model_card.json").read_text())
    assert float(exact.get_attribute("value")) == pytest.approx(card["threshold"], rel=1e-4)
    assert counted(report) == expected(run, card["threshold"])
    seen = []
    for keys in (Keys.HOME, Keys.PAGE_UP * 5, Keys.PAGE_UP * 2 + Keys.ARROW_RIGHT * 7, Keys.END):
        slider.send_keys(keys)
        threshold = float(exact.get_attribute("value"))
        assert counted(report) == expected(run, threshold)
        seen.append(counted(report)["defective"][0])
    assert seen[0] == 40 and seen[-1] == 0 and len(set(seen)) == 4
    assert slider.get_attribute("aria-valuetext") == exact.get_attribute("value")
    spoken = f"Threshold {exact.get_attribute('value')}: 0 of 40 defects found · 0 of 20 good"
    WebDriverWait(report, 5).until(lambda _: by_id(report, "spoken").text.startswith(spoken))
    tied = sorted(float(row["score"]) for row in table(run))[30]  # is not above itself
    for typed in (9.25, tied):
        exact.clear()
        exact.send_keys(repr(typed), Keys.ENTER)
        assert counted(report) == expected(run, typed)
    by_id(report, "reset").click()
    assert counted(report) == expected(run, card["threshold"])
    assert not by_id(report, "reset").is_enabled()


def test_the_curves_show_the_threshold(report, run):
    auroc = json.loads((run / "metrics.json").read_text())["image_auroc"]
    assert by_id(report, "roctitle").text == f"ROC: area {100 * auroc:.1f} %"
    dot = report.find_element(By.CSS_SELECTOR, ".dot")
    line = report.find_element(By.CSS_SELECTOR, "#histogram .threshold")
    before = line.get_attribute("d")
    by_id(report, "threshold").send_keys(Keys.HOME)  # all are anomalous: 100 %, 100 %
    assert [float(dot.get_attribute(name)) for name in ("cx", "cy")] == [406, 10]
    assert line.get_attribute("d") != before and line.get_attribute("d").startswith("M60.")
    ActionChains(report).move_to_element(line.find_element(By.XPATH, "..")).click().perform()
    middle = float(by_id(report, "exact").get_attribute("value"))
    assert counted(report) == expected(run, middle) and counted(report)["defective"][0] < 40


def test_sorting_and_filters(report, run):
    rows = table(run)
    by_score = sorted(rows, key=lambda row: -float(row["score"]))
    plain = {row["path"] for row in rows if row["path"].removeprefix("test/")[:-4].isdigit()}

    def shown():  # the odd names are another test's
        return [name for name in files(report) if name in plain]

    def right(chosen):
        return [row["path"] for row in chosen if row["path"] in plain]

    assert shown() == right(by_score)
    Select(by_id(report, "sort")).select_by_value("lowest")
    assert shown() == right(by_score[::-1])
    by_id(report, "exact").clear()
    by_id(report, "exact").send_keys("9", Keys.ENTER)
    Select(by_id(report, "sort")).select_by_value("nearest")
    assert shown() == right(sorted(rows, key=lambda row: abs(float(row["score"]) - 9)))

    def wrong(row):
        return (float(row["score"]) > 9) != (row["label"] == "1")

    Select(by_id(report, "sort")).select_by_value("wrong")
    far = sorted(rows, key=lambda row: -abs(float(row["score"]) - 9))
    assert shown() == right(sorted(far, key=lambda row: not wrong(row)))
    Select(by_id(report, "sort")).select_by_value("highest")
    for value, keep in {
        "wrong": wrong,
        "missed": lambda row: wrong(row) and row["label"] == "1",
        "false alarm": lambda row: wrong(row) and row["label"] == "0",
        "anomalous": lambda row: float(row["score"]) > 9,
        "normal": lambda row: float(row["score"]) <= 9,
    }.items():
        Select(by_id(report, "verdict")).select_by_value(value)
        chosen = [row for row in by_score if keep(row)]
        assert shown() == right(chosen)
        assert by_id(report, "shown").text == f"{len(chosen)} of 60 images"
    Select(by_id(report, "kind")).select_by_visible_text("crack")
    assert shown() == right(
        [r for r in by_score if float(r["score"]) <= 9 and r["defect"] == "crack"]
    )
    by_id(report, "threshold").send_keys(Keys.END)  # the filter follows
    cracks = [row for row in by_score if row["defect"] == "crack"]
    WebDriverWait(report, 5).until(lambda _: shown() == right(cracks))


def test_names_are_text_whatever_is_in_them(report):
    assert set(HOSTILE) - {HOSTILE[3]} <= set(files(report))
    assert any("画像" in name and "🙂" in name for name in files(report))
    kinds = [option.text for option in Select(by_id(report, "kind")).options]
    assert kinds == ["all", HOSTILE_KIND, "crack", "good"]
    for name in HOSTILE[:3]:
        card = next(
            c
            for c in report.find_elements(By.CSS_SELECTOR, ".card")
            if c.find_element(By.CSS_SELECTOR, ".file").get_attribute("title") == name
        )
        assert card.find_element(By.CSS_SELECTOR, ".photo").get_attribute("alt") == name
        card.click()
        assert by_id(report, "name").text == name
        by_id(report, "close").click()
    assert report.find_elements(By.CSS_SELECTOR, "#report b[onmouseover], img[onerror]") == []


def test_all_by_keyboard(report, run):
    boxes = {}
    for line in (run / "images.jsonl").read_text().splitlines():
        record = json.loads(line)
        boxes[record["path"]] = [region["box"] for region in record["regions"]]
    calibration = np.array(json.loads((run / "model_card.json").read_text())["calibration"])
    score = {row["path"]: float(row["score"]) for row in table(run)}
    order = files(report)
    report.find_element(By.CSS_SELECTOR, "#choices .opacity").send_keys(Keys.TAB)
    focused = report.switch_to.active_element
    assert focused.find_element(By.CSS_SELECTOR, ".file").get_attribute("title") == order[0]
    focused.send_keys(Keys.ARROW_RIGHT)
    report.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    report.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    columns = len(
        report.execute_script(
            "return getComputedStyle(document.querySelector('#cards')).gridTemplateColumns"
        ).split()
    )
    report.switch_to.active_element.send_keys(Keys.ENTER)
    at = 2 + columns
    for key, step in (
        (None, 0),
        (Keys.ARROW_RIGHT, 1),
        (Keys.ARROW_LEFT, -1),
        (Keys.ARROW_LEFT, -1),
    ):
        if key:
            report.switch_to.active_element.send_keys(key)
        at += step
        assert by_id(report, "name").text == order[at]
        p_value = (1 + (calibration >= score[order[at]]).sum()) / (1 + len(calibration))
        assert f" · p = {p_value:.2g} · " in by_id(report, "verdicts").text
        drawn = [
            [float(box.get_attribute(name)) for name in ("x", "y", "width", "height")]
            for box in report.find_elements(By.CSS_SELECTOR, "#large .boxes rect:not(.dark)")
        ]
        assert drawn == [[x, y, right - x, low - y] for x, y, right, low in boxes[order[at]]]
    assert any(boxes.values())
    report.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not by_id(report, "large").is_displayed()
    back = report.switch_to.active_element.find_element(By.CSS_SELECTOR, ".file")
    assert back.get_attribute("title") == order[at]
    report.switch_to.active_element.send_keys(Keys.TAB)  # on to what follows the grid
    assert report.switch_to.active_element.tag_name == "summary"


def test_the_score_map_can_be_faded(report):
    slider = report.find_element(By.CSS_SELECTOR, "#choices .opacity")
    colours = report.find_element(By.CSS_SELECTOR, "#cards .colours")
    photo = report.find_element(By.CSS_SELECTOR, "#cards .photo")
    assert colours.value_of_css_property("opacity") == "0.65"
    slider.send_keys(Keys.END)
    assert colours.value_of_css_property("opacity") == "1"
    assert photo.value_of_css_property("filter") == "grayscale(1)"
    slider.send_keys(Keys.HOME)
    assert colours.value_of_css_property("opacity") == "0"
    assert photo.value_of_css_property("filter") == "none"
    size = report.execute_script(
        "const image = document.querySelector('#cards .photo');"
        "return [image.naturalWidth, image.naturalHeight, image.clientWidth / image.clientHeight]"
    )
    assert size == [96, 64, pytest.approx(1.5, rel=0.02)]


def test_every_control_has_a_name(report):
    controls = "button:not(.card), input, select, summary, svg[role], li:first-child .card"
    for control in report.find_elements(By.CSS_SELECTOR, controls):
        if control.is_displayed():
            assert control.accessible_name, control.get_attribute("outerHTML")[:200]


def test_phone_and_dark(report):
    light = by_id(report, "control").value_of_css_property("background-color")
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    try:
        report.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        report.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        assert report.execute_script("return document.documentElement.scrollWidth") == 390
        dark = by_id(report, "control").value_of_css_property("background-color")
        assert (light, dark) == ("rgba(255, 255, 255, 1)", "rgba(29, 32, 38, 1)")
    finally:
        report.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        report.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_print_has_the_pictures(report):
    pictures = "[...document.querySelectorAll('#cards img')]"
    report.execute_script(f"{pictures}.forEach((image) => image.removeAttribute('src'))")
    report.print_page(PrintOptions())
    assert report.execute_script(f"return {pictures}.filter((e) => e.naturalWidth).length") == 120


# How notebooks show foreign HTML: in a frame without an origin of its own, or put into a page, of
# which the scripts are made anew, since those of innerHTML do not run.
FRAME = """
    const frame = document.createElement("iframe");
    Object.assign(frame, { width: 900, height: 700, sandbox: "allow-scripts", srcdoc: html });
    document.body.append(frame);"""
PUT_IN = """
    const cell = document.body.appendChild(document.createElement("div"));
    cell.innerHTML = html;
    for (const old of cell.querySelectorAll("script")) {
      const made = document.createElement("script");
      for (const { name, value } of old.attributes) made.setAttribute(name, value);
      made.textContent = old.textContent;
      old.replaceWith(made);
    }"""


@pytest.mark.parametrize("way", [FRAME, PUT_IN])
def test_it_works_in_a_notebook(way, window, run, tmp_path):
    html = json.dumps((run / "report.html").read_text("utf-8")).replace("<", "\\u003c")
    text = f"<title>notebook</title><h1>1</h1><script>const html = {html};{way}</script>"
    (tmp_path / "notebook.html").write_text(text, "utf-8")
    window.get((tmp_path / "notebook.html").as_uri())
    if way == FRAME:
        window.switch_to.frame(0)
    WebDriverWait(window, 10).until(lambda _: len(files(window)) == 60)
    window.execute_script("document.querySelector('.card').scrollIntoView()")
    loaded = "return document.querySelector('#cards .photo').naturalWidth"
    WebDriverWait(window, 10).until(lambda _: window.execute_script(loaded) == 96)
    by_id(window, "threshold").send_keys(Keys.HOME)
    assert counted(window)["defective"] == [40, 0]
    window.switch_to.default_content()
    assert window.title == "notebook"


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """The report of 2,100 images that are hard to compress, and their scores."""
    folder = tmp_path_factory.mktemp("many")
    scores = np.random.default_rng(0).gamma(4, size=2100)
    write_predictions(folder, scores.tolist())
    return page.write(folder), scores


def test_many_images_are_a_choice_in_bounded_size(many):
    file, scores = many
    assert 40e6 < file.stat().st_size < 60e6
    data = data_of(file)
    assert len(data["images"]) == 2000 and len(data["others"]) == 100
    told = [image["score"] for image in data["images"]] + [other[0] for other in data["others"]]
    assert sorted(told) == sorted(scores)
    assert data["errors"] == [["inbox/bad.png", "inbox/bad.png is not a png"]]
    pictures = pictures_of(file)
    assert len(pictures) == 2000 and all(len(each) == 2 for each in pictures)
    assert min(Image.open(io.BytesIO(image)).size[0] for image, _ in pictures[:4]) >= 200


def test_thousands_of_images_are_decoded_when_they_come_into_view(window, many):
    file, scores = many
    window.get(file.as_uri())
    decoded = "return [...document.querySelectorAll('#cards img[src]')].map((e) => e.alt)"
    WebDriverWait(window, 10).until(lambda _: len(window.execute_script(decoded)) > 0)
    first = set(window.execute_script(decoded))
    assert len(files(window)) == 2000 and len(first) < 100
    window.execute_script("scrollTo(0, document.body.scrollHeight / 2)")
    WebDriverWait(window, 10).until(
        lambda _: (now := set(window.execute_script(decoded))) and not now & first - {""}
    )
    assert len(window.execute_script(decoded)) < 200
    assert "Of 2,100 images the 2,000 with the highest scores" in by_id(window, "limited").text
    assert "inbox/bad.png is not a png" in by_id(window, "errors").text
    threshold = float(np.median(scores).round(3))
    by_id(window, "exact").clear()
    by_id(window, "exact").send_keys(str(threshold), Keys.ENTER)
    above = int((scores > threshold).sum())  # all count, whether they are shown or not
    assert by_id(window, "summary").text == f"{above:,} of 2,100 images anomalous"
    slowest = window.execute_script("""
        const slider = document.getElementById("threshold");
        const times = [0, 250, 500, 750, 1000].map((value) => {
          const start = performance.now();
          slider.value = value;
          slider.dispatchEvent(new Event("input"));
          document.body.offsetHeight;
          return performance.now() - start;
        });
        return Math.max(...times);""")
    assert slowest < 500  # milliseconds; 14 on an idle machine
