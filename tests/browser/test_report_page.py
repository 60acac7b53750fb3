"""The report page as a reader meets it: opened from disk, in a real browser."""

import json

import pytest
from fake_records import FakeArm, write_fake_records

from synthgrad.bench.report import write_report
from synthgrad.bench.scoring.table import MISSING

pytestmark = pytest.mark.browser

DESKTOP = {"width": 1280, "height": 900}
HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(2)><a href="x">$link$</a>'


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(write_fake_records(tmp_path_factory.mktemp("records")))


def open_page(browser, report, *, viewport=DESKTOP, **options):
    """Open a report; `complaints` will hold what went wrong, `requested` what it asked for."""
    page = browser.new_context(viewport=viewport, **options).new_page()
    page.complaints = []
    page.requested = []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("dialog", lambda dialog: page.complaints.append(dialog.message))
    page.on("request", lambda request: page.requested.append(request.url))
    page.goto(report.as_uri())
    return page


@pytest.fixture(scope="module")
def page(browser, report):
    """One page for all tests that leave it as they found it; opening it takes time."""
    page = open_page(browser, report)
    yield page
    assert page.complaints == []
    page.context.close()


@pytest.fixture
def visit(browser):
    """Open a report in a page of one's own."""
    pages = []

    def visit(report, **options):
        pages.append(open_page(browser, report, **options))
        return pages[-1]

    yield visit
    for page in pages:
        page.context.close()


class TestQuiet:
    def test_asks_for_nothing_but_itself_and_complains_about_nothing(self, page, report):
        page.wait_for_load_state("networkidle")
        assert page.requested == [report.as_uri()]
        assert page.complaints == []

    def test_cannot_ask_for_anything_else(self, visit, report):
        blocked = visit(report).evaluate(
            """() => new Promise((resolve) => {
              document.addEventListener("securitypolicyviolation", (event) =>
                resolve(event.blockedURI));
              document.body.append(Object.assign(new Image(), { src: "http://localhost:9/x.png" }));
            })"""
        )
        assert blocked == "http://localhost:9/x.png"


class TestPlots:
    def axis_title(self, page, plot):
        return page.locator(f"#plot-{plot} .xtitle").text_content()

    def num_traces(self, page, plot):
        return page.locator(f"#plot-{plot} .scatterlayer .trace").count()

    def test_all_are_drawn(self, page):
        plots = page.locator(".plot").all()
        assert len(plots) == 4 + 2 + 2 * 3  # curves, speed, two measures at three interfaces
        for plot in plots:
            assert plot.locator(".scatterlayer .trace").count() > 0
            assert plot.get_attribute("aria-label")

    def test_curves_show_a_median_and_the_seeds_of_each_arm(self, page):
        assert self.num_traces(page, "val_accuracy") == 2 * 5  # of the six arms five have run

    def test_the_axis_changes_by_keyboard(self, page):
        assert self.axis_title(page, "val_accuracy") == "iterations"
        page.locator("input[name=x][value=iteration]").focus()
        page.keyboard.press("ArrowRight")
        for plot in ("val_accuracy", "train_accuracy", "val_loss", "train_loss"):
            assert self.axis_title(page, plot) == "training seconds"
        page.keyboard.press("ArrowLeft")
        assert self.axis_title(page, "val_loss") == "iterations"

    def test_an_arm_is_hidden_by_keyboard_everywhere(self, page):
        button = page.locator("#curves .legend button", has_text="cDNI (linear)")
        button.focus()
        page.keyboard.press("Space")
        assert button.get_attribute("aria-pressed") == "false"
        twin = page.locator("#alignment .legend button", has_text="cDNI (linear)")
        assert twin.get_attribute("aria-pressed") == "false"
        assert self.num_traces(page, "val_accuracy") == 2 * 4
        assert self.num_traces(page, "cosine-0") == 2 * 2
        page.keyboard.press("Space")
        assert self.num_traces(page, "val_accuracy") == 2 * 5

    def test_a_point_tells_its_arm(self, page):
        plot = page.locator("#plot-accounting")
        plot.scroll_into_view_if_needed()
        plot.locator(".scatterlayer .trace").last.locator(".point").last.hover(force=True)
        assert "cDNI (mirror), p = 0.2" in plot.locator(".hoverlayer").text_content()


class TestTables:
    def column(self, page, title):
        """Return the texts of a column of the main table, from top to bottom."""
        script = """title => {
          const table = document.querySelector("#arms table");
          const heads = [...table.tHead.rows[1].cells].map((head) => head.textContent);
          const position = heads.indexOf(title);
          const cells = [...table.tBodies[0].rows].map((row) => row.cells[position]);
          return cells.map((cell) => cell.firstChild.textContent);
        }"""
        return page.evaluate(script, title)

    def test_sort_by_keyboard_and_back(self, page):
        table = page.locator("#arms table").first
        before = self.column(page, "Accuracy (%)")
        values = sorted((value for value in before if value != MISSING), key=float)
        head = table.get_by_role("columnheader", name="Accuracy (%)", exact=True)
        head.get_by_role("button").focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"
        assert self.column(page, "Accuracy (%)") == [*values, MISSING]
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        assert self.column(page, "Accuracy (%)") == [*values[::-1], MISSING]
        table.get_by_role("button", name="Arm", exact=True).press("Space")
        sorted_heads = table.locator("th[aria-sort=ascending], th[aria-sort=descending]")
        assert sorted_heads.all_text_contents() == ["Arm"]
        assert self.column(page, "Accuracy (%)") == before

    def test_a_number_leads_to_its_records(self, page):
        page.locator("#arms tbody td a").first.click()
        assert page.url.endswith("#records-0")
        assert page.locator(":target").get_by_role("link", name="events.jsonl").count() == 3

    def test_a_record_opens(self, visit, report):
        page = visit(report)
        page.locator("#records-0").get_by_role("link", name="run.json").first.click()
        page.wait_for_url("**/runs/backprop-s0/run.json")
        assert json.loads(page.locator("pre").text_content())["arm"] == "backprop"


class TestTheme:
    LIGHT, DARK = "rgb(255, 255, 255)", "rgb(21, 23, 26)"

    def look(self, page):
        """Return the color of the page's ground and that of the text in a plot."""
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        text = page.locator("#plot-val_loss .xtitle")
        return ground, text.evaluate("node => getComputedStyle(node).fill")

    def test_follows_the_system(self, visit, report, page):
        light, dark = self.look(page), self.look(visit(report, color_scheme="dark"))
        assert (light[0], dark[0]) == (self.LIGHT, self.DARK)
        assert light[1] != dark[1]

    def test_follows_the_system_when_it_changes(self, page):
        light = self.look(page)
        page.emulate_media(color_scheme="dark")
        dark = self.look(page)
        assert (light[0], dark[0]) == (self.LIGHT, self.DARK)
        assert light[1] != dark[1]
        page.emulate_media(color_scheme="light")
        assert self.look(page) == light

    def test_the_button_turns_it_round_plots_included(self, page):
        light = self.look(page)
        button = page.get_by_role("button", name="Dark")
        assert button.get_attribute("aria-pressed") == "false"
        button.focus()
        page.keyboard.press("Enter")
        assert button.get_attribute("aria-pressed") == "true"
        dark = self.look(page)
        assert (light[0], dark[0]) == (self.LIGHT, self.DARK)
        assert light[1] != dark[1]
        page.keyboard.press("Enter")
        assert self.look(page) == light


class TestReach:
    @pytest.mark.parametrize("width", [320, 390, 768])
    def test_the_page_never_scrolls_sideways(self, visit, report, width):
        page = visit(report, viewport={"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # The table does, in a container of its own that can be reached by keyboard.
        table = page.locator("#arms .scroll").first
        assert table.evaluate("node => node.scrollWidth > node.clientWidth")
        assert table.get_attribute("tabindex") == "0"
        for plot in page.locator(".plot .main-svg").all():
            box = plot.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width

    def test_by_keyboard_alone(self, visit, report):
        page = visit(report)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
        assert page.locator(".skip").bounding_box()["y"] >= 0
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "theme"
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"

    def test_without_javascript_there_are_pictures_and_no_dead_controls(self, visit, report):
        page = visit(report, java_script_enabled=False)
        pictures = page.locator("figure > img").all()
        assert len(pictures) == 5
        assert all(picture.is_visible() for picture in pictures)
        dead = page.locator(".plot, button, input").all()
        assert dead
        assert not any(control.is_visible() for control in dead)


def test_labels_are_never_markup(visit, tmp_path):
    arm = FakeArm(
        arm="backprop",
        label=HOSTILE,
        signal=None,
        limit=98.0,
        pace=1.0,
        milliseconds=5.0,
        updates_per_iteration=4,
    )
    report = write_report(write_fake_records(tmp_path, arms=(arm,)), title=HOSTILE)
    page = visit(report)
    page.locator("#plot-val_loss .scatterlayer .trace .point").last.hover(force=True)
    assert HOSTILE in page.locator("#plot-val_loss .hoverlayer").text_content()
    assert page.locator("h1").text_content() == HOSTILE
    assert page.complaints == []
    assert page.requested == [report.as_uri()]
