"""The viewer in a real browser: Chromium opens the page from a file, and the pixels that it draws are looked at."""
from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
from report_pages import make_results

from nnmiss.report.page import Options, build_page
from nnmiss.report.viewer import viewer_section
from nnmiss.report.viewer_images import ViewerCase

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install -e .[test]")

FLAGS = ("--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1300,1000",
         "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")  # WebGL without a graphics card
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
TRUTH = (slice(10, 18), slice(26, 36), slice(14, 22))  # off the middle in every axis: a mirrored image would be seen
SUBSETS = {"flair": (2, (slice(28, 36), slice(12, 20), slice(10, 18))), "flair+t1": (1, TRUTH),
           "t1": (0, TRUTH)}  # label and place of each prediction; that of t1 is empty
# What a canvas shows, drawn in the same task as it is read: left of and above what the mean voxel of each colour lies.
READ = """
const { nv } = nnmissViewer.panes[arguments[0]];
nv.opts.crosshairWidth = 0; nv.opts.isOrientationTextVisible = false;
nv.drawScene();
const { width, height } = nv.gl.canvas, pixels = new Uint8Array(4 * width * height);
nv.gl.readPixels(0, 0, width, height, nv.gl.RGBA, nv.gl.UNSIGNED_BYTE, pixels);
const colours = { red: [0, 0, 0], green: [0, 0, 0], blue: [0, 0, 0], grey: [0, 0, 0] };
let hash = 0, sum = 0;
for (let i = 0; i < pixels.length; i += 4) {
  const [r, g, b] = [pixels[i], pixels[i + 1], pixels[i + 2]];
  hash = (Math.imul(hash, 31) + r + 7 * g + 49 * b) | 0;
  const most = Math.max(r, g, b), others = r + g + b - most;
  const name = most < 20 ? null : most > others + 40 ? (most === r ? "red" : most === g ? "green" : "blue") : "grey";
  if (!name) continue;
  const count = colours[name];
  count[0] += 1; count[1] += (i / 4) % width / width; count[2] += Math.floor(i / 4 / width) / height;
  if (name === "grey") sum += r;
}
return { hash, brightness: sum / Math.max(1, colours.grey[0]),
         ...Object.fromEntries(Object.entries(colours).map(([k, [n, x, y]]) => [k, [n, x / n, y / n]])) };
"""
CHOOSE = """const select = document.getElementById(`viewer-${arguments[0]}`); select.value = arguments[1];
select.dispatchEvent(new Event("change"));"""


def make_case(folder: Path, name: str, power: float = 2) -> ViewerCase:
    """A ball of random greys, darker in flair than in t1, with the truth in a corner of it; x grows to the right."""
    shape, affine = (48, 48, 40), np.diag([2.0, 2.0, 2.0, 1.0])
    ball = sum((grid - (n - 1) / 2) ** 2 for grid, n in zip(np.indices(shape), shape)) < 22**2
    grey = np.random.default_rng(0).uniform(0.4, 1, shape)
    images = {}
    for modality, exponent in (("flair", power), ("t1", 1 / power)):
        values = (ball * 900 * grey**exponent).astype(np.float32)
        images[modality] = save(folder / f"{name}_{modality}.nii.gz", values, affine)
    labels = np.zeros(ball.shape, dtype=np.uint8)
    labels[TRUTH] = 1
    gt = save(folder / f"{name}_gt.nii.gz", labels, affine)
    predictions = {}
    for subset, (label, place) in SUBSETS.items():
        labels = np.zeros(ball.shape, dtype=np.uint8)
        labels[place] = label
        predictions[subset] = save(folder / f"{name}_with_{subset}.nii.gz", labels, affine)
    return ViewerCase(name, images, gt, {"ours": predictions}, {"ours": {"flair": "Dice 0.000 (made up)"}})


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    nibabel.Nifti1Image(array, affine).to_filename(path)
    return path


def page_of(section: str) -> str:
    links = ('<a id="link" href="#viewer" data-case="case_b">case_b</a> <a id="nobody" href="#viewer" data-case="x">x</a> '
             '<svg width="40" height="40"><a id="dot" href="#viewer" data-case="case_a"><circle r="19" cx="20" cy="20"/>'
             "</a></svg>")
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>t</title><body>{links}{section}</body></html>'


class Page:
    """The page in the browser, with waiting until the viewer has drawn what was asked for."""

    def __init__(self, driver):
        self.driver = driver

    def wait(self, shown: str | None = None) -> str:
        """Returns what is shown, as 'case|modality|method|subset', once drawing has ended; or the viewer's message."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            now, busy, message = self.driver.execute_script(
                'const v = document.getElementById("viewer");'
                'return [v.dataset.shown, v.getAttribute("aria-busy"), v.querySelector(".viewer-message").textContent];')
            if message:
                return message
            if now and busy == "false" and (shown is None or now == shown):
                return now
            time.sleep(0.05)
        raise AssertionError(f"the viewer did not show {shown}: {now}, busy {busy}")

    def open(self, file: Path, shown: str) -> None:
        self.driver.get(file.as_uri())
        assert self.wait(shown) == shown

    def choose(self, control: str, value: str, shown: str) -> None:
        self.driver.execute_script(CHOOSE, control, value)
        assert self.wait(shown) == shown

    def read(self, side: str) -> dict:
        return self.driver.execute_script(READ, side)

    def text(self, name: str) -> str:
        return self.driver.find_element("id", f"viewer-{name}").text


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    chromium, chromedriver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("chromium or chromedriver is not installed: the viewer is not tested in a browser")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=chromedriver))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    case_b = make_case(folder, "case_b", power=4)
    del case_b.images["t1"]
    section = viewer_section([make_case(folder, "case_a"), case_b], 60_000_000, {1: ("one", RED), 2: ("two", BLUE)})
    (folder / "report.html").write_text(page_of(section.html), encoding="utf-8")
    return folder / "report.html"


@pytest.fixture
def page(driver, file) -> Page:
    page = Page(driver)
    page.open(file, "case_a|flair|ours|flair+t1")
    return page


def test_draws_without_network_or_errors(page, file, tmp_path):
    driver = page.driver
    for side in ("left", "right"):
        seen = page.read(side)
        assert seen["grey"][0] > 10_000 and seen["red"][0] > 500 and seen["blue"][0] == 0
        # small x is the patient's left, which radiologists show on the right; large y is the front, shown above
        assert 0.6 < seen["red"][1] < 0.8 and 0.6 < seen["red"][2] < 0.8
    driver.save_screenshot(str(tmp_path / "viewer.png"))
    assert (tmp_path / "viewer.png").stat().st_size > 10_000
    resources = driver.execute_script('return performance.getEntriesByType("resource").map((r) => r.name)')
    assert not [r for r in resources if not r.startswith(("data:", "blob:"))]
    messages = [json.loads(m["message"])["message"] for m in driver.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"
            and m["params"].get("documentURL", "").startswith("file:")]
    assert file.as_uri() in sent
    assert not [url[:80] for url in sent if not url.startswith(("data:", "blob:", file.as_uri()))]
    assert [m for m in driver.get_log("browser") if m["level"] in ("SEVERE", "WARNING")] == []


def test_subset_changes_the_prediction_only(page):
    left, right = page.read("left"), page.read("right")
    page.choose("subset", "flair", "case_a|flair|ours|flair")
    assert page.read("left") == left
    changed = page.read("right")
    assert changed["hash"] != right["hash"] and changed["red"][0] == 0 and changed["blue"][0] > 300
    assert changed["blue"][1] < 0.45 and changed["blue"][2] < 0.45  # where that prediction is, far from the truth
    assert "Dice 0.000 (made up)" in page.text("right-caption") and "●○ flair" in page.text("right-caption")
    page.choose("subset", "t1", "case_a|flair|ours|t1")
    empty = page.read("right")
    assert empty["red"][0] == empty["blue"][0] == 0 and empty["grey"][0] > left["grey"][0]
    assert "the network was not shown flair" in page.text("right-caption")
    page.choose("subset", "flair+t1", "case_a|flair|ours|flair+t1")
    assert page.read("right") == right and page.read("left") == left


def test_modality_changes_both(page):
    left, right = page.read("left"), page.read("right")
    page.choose("modality", "t1", "case_a|t1|ours|flair+t1")
    for before, after in ((left, page.read("left")), (right, page.read("right"))):
        assert abs(after["brightness"] - before["brightness"]) > 20
        assert after["red"][1:] == pytest.approx(before["red"][1:], abs=0.01)


def test_opacity_outlines_view_and_slice(page):
    slider = """const s = document.getElementById("viewer-slice"); s.value = arguments[0];
        s.dispatchEvent(new Event("input"))"""
    page.driver.execute_script(slider, 17)  # through the inside of the truth
    before = page.read("left")
    page.driver.execute_script('const o = document.getElementById("viewer-opacity"); o.value = 0;'
                               'o.dispatchEvent(new Event("input"))')
    page.wait()
    assert page.read("left")["red"][0] == page.read("right")["red"][0] == 0
    page.driver.execute_script('const o = document.getElementById("viewer-opacity"); o.value = 60;'
                               'o.dispatchEvent(new Event("input")); document.getElementById("viewer-outline").click()')
    page.wait()
    assert 0 < page.read("left")["red"][0] < 0.8 * before["red"][0]
    page.driver.execute_script('document.getElementById("viewer-outline").click()')
    page.wait()
    assert page.read("left") == before
    page.driver.execute_script(slider, 2)
    assert page.read("left")["red"][0] == page.read("right")["red"][0] == 0  # a slice below the truth
    assert page.text("slice-number").startswith("3 of ")
    page.driver.execute_script(CHOOSE, "view", "1")
    page.wait()
    coronal = page.read("left")
    assert coronal["red"][0] > 300 and coronal["hash"] != before["hash"]


def test_keyboard_and_click_move_both(page):
    from selenium.webdriver.common.keys import Keys

    at = page.text("slice-number")
    canvas = page.driver.find_element("id", "viewer-left")
    canvas.click()  # the crosshair goes to the middle of the image, in both
    left, right = page.driver.execute_script(
        "return ['left', 'right'].map((s) => [...nnmissViewer.panes[s].nv.scene.crosshairPos])")
    assert left == right and left[:2] == pytest.approx([0.5, 0.5], abs=0.03) and page.text("slice-number") == at
    canvas.send_keys(Keys.ARROW_UP)
    number = int(at.split()[0])
    assert page.text("slice-number").startswith(f"{number + 1} of")
    select = page.driver.find_element("id", "viewer-subset")
    select.send_keys(Keys.HOME)
    assert page.wait("case_a|flair|ours|flair")


def test_links_open_cases(page):
    first = page.read("left")
    page.driver.find_element("id", "link").click()
    assert page.wait("case_b|flair|ours|flair+t1")
    assert page.read("left")["hash"] != first["hash"] and "case_b" in page.text("left-caption")
    options = page.driver.find_elements("css selector", "#viewer-modality option")
    assert [(o.text, o.is_enabled()) for o in options] == [("flair", True), ("t1 (absent)", False)]
    page.driver.find_element("css selector", "#dot circle").click()  # a link inside a drawing
    assert page.wait("case_a|flair|ours|flair+t1")
    page.driver.find_element("id", "nobody").click()
    assert page.wait() == "The images of case x are not in this page, only those of case_a, case_b."


def test_half_resolution_stays_in_place(driver, tmp_path):
    """The same case with a limit that only halved images fit in: image and labels lie where they lay."""
    case = make_case(tmp_path, "case_h")
    full = viewer_section([case], 60_000_000, {1: ("one", RED)})
    half = viewer_section([case], full.bytes - 20_000, {1: ("one", RED)})
    assert len(half.notes) == 1 and "half the resolution" in half.notes[0]
    seen = []
    for k, section in enumerate((full, half)):
        (tmp_path / f"{k}.html").write_text(page_of(section.html), encoding="utf-8")
        page = Page(driver)
        page.open(tmp_path / f"{k}.html", "case_h|flair|ours|flair+t1")
        page.choose("modality", "t1", "case_h|t1|ours|flair+t1")
        page.choose("subset", "t1", "case_h|t1|ours|t1")
        seen.append((page.read("left"), page.read("right")))
    (left, right), (left_half, right_half) = seen
    assert right["hash"] != right_half["hash"] and right_half["grey"][0] == pytest.approx(right["grey"][0], rel=0.12)
    assert right_half["grey"][1:] == pytest.approx(right["grey"][1:], abs=0.004)
    assert left["red"][0] > 1000 and left_half["red"][0] == pytest.approx(left["red"][0], rel=0.25)
    assert left_half["red"][1:] == pytest.approx(left["red"][1:], abs=0.01)


def test_case_without_truth_and_predictions(driver, tmp_path):
    case = make_case(tmp_path, "case_n")
    case.gt, case.predictions = None, {}
    (tmp_path / "n.html").write_text(page_of(viewer_section([case], 60_000_000).html), encoding="utf-8")
    page = Page(driver)
    page.open(tmp_path / "n.html", "case_n|flair||")
    assert page.read("left") == page.read("right") and page.read("left")["grey"][0] > 10_000
    assert page.text("left-caption").startswith("Truth none for this case")
    assert page.text("right-caption").startswith("Prediction none for this case")
    assert not driver.find_element("id", "viewer-subset").is_displayed()


def test_wheel_scrolls_the_page_until_an_image_is_clicked(page):
    from selenium.webdriver.common.action_chains import ActionChains, ScrollOrigin

    driver = page.driver
    canvas = driver.find_element("id", "viewer-right")
    driver.execute_script("arguments[0].scrollIntoView(); window.scrollBy(0, -60)", canvas)
    origin, at = ScrollOrigin.from_element(canvas), page.text("slice-number")

    def scrolled(up: int) -> float:
        before = driver.execute_script("return window.scrollY")
        ActionChains(driver).scroll_from_origin(origin, 0, -up).perform()
        time.sleep(0.3)
        return before - driver.execute_script("return window.scrollY")

    assert scrolled(40) > 0 and page.text("slice-number") == at
    canvas.click()
    assert scrolled(40) == 0 and page.text("slice-number") != at


def test_without_webgl_it_says_so(driver, file):
    added = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {
        "source": "HTMLCanvasElement.prototype.getContext = () => null;"})
    try:
        driver.get(file.as_uri())
        page = Page(driver)
        assert page.wait().startswith("The images cannot be shown: this browser lacks WebGL2.")
        assert not driver.find_element("id", "viewer-left").is_displayed()
    finally:
        driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": added["identifier"]})


BROKEN = """const broken = [];
for (const cell of document.querySelectorAll(arguments[0])) {
  const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) for (const word of walker.currentNode.data.matchAll(arguments[1] ? /\\S+/g : /.+/gs)) {
    const range = document.createRange();
    range.setStart(walker.currentNode, word.index);
    range.setEnd(walker.currentNode, word.index + word[0].length);
    if (new Set([...range.getClientRects()].map((r) => Math.round(r.top))).size > 1) broken.push(word[0]);
  }
}
return broken;"""


def test_names_of_methods_break_between_words_and_the_average_not_at_all(driver, tmp_path):
    for name in ("metakd fold 0", "modality_dropout fold 0", "all_stage fold 0"):
        make_results(tmp_path / name)
    made = build_page(Options([str(tmp_path / n) for n in ("metakd fold 0", "modality_dropout fold 0", "all_stage fold 0")],
                              viewer=False))
    (tmp_path / "report.html").write_text(made.html, encoding="utf-8")
    driver.get((tmp_path / "report.html").as_uri())
    assert driver.execute_script("return document.querySelectorAll('.compared thead th').length") > 10
    assert driver.execute_script(BROKEN, ".compared thead th", True) == []
    assert driver.execute_script(BROKEN, "tfoot th", False) == []
