"""The page of a run in a real browser: sizes and colour schemes, accessibility by axe, tooltips, sorting, saving.

`make proof` installs what it needs: Debian's chromium and chromium-driver, and selenium and axe-core-python.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keras_lth import report
from tests.report import rows

pytestmark = pytest.mark.proof
# Widths of a phone, a laptop and a large screen, in pixels.
SIZES = {"phone": (390, 844), "laptop": (1280, 800), "wide": (1920, 1080)}
SCHEMES = ("light", "dark")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--allow-file-access-from-files",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def driver(folder: Path) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS, f"--user-data-dir={folder / 'user'}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    made = rows.store(folder / "run", [*rows.lottery(levels=5), *rows.lines()], arguments={"config": rows.SETTING})
    return Path(str(report.write(made))).as_uri()


def shown(driver: Any, page: str, size: str = "laptop", scheme: str = "light") -> None:
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    driver.get(page)


@pytest.mark.parametrize(("size", "scheme"), list(itertools.product(SIZES, SCHEMES)))
def test_nothing_overflows_and_axe_finds_nothing(driver: Any, page: str, size: str, scheme: str, folder: Path) -> None:
    from axe_core_python.selenium import Axe

    shown(driver, page, size, scheme)
    assert driver.get_log("browser") == []
    inner, outer = driver.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert inner <= outer
    found = [
        f"{rule['id']}: {rule['nodes'][0]['target']} {rule['nodes'][0].get('failureSummary')}"
        for rule in Axe().run(driver)["violations"]
    ]
    assert found == []
    driver.save_screenshot(str(folder / f"{size}_{scheme}.png"))


def test_pointing_at_a_marker_shows_its_numbers(driver: Any, page: str) -> None:
    shown(driver, page)
    found = driver.execute_script("""
        return [...document.querySelectorAll("figure")].map(figure => {
          figure.scrollIntoView();
          const marks = [...figure.querySelectorAll(".tip")].filter(mark => {
            const box = mark.getBoundingClientRect();
            return document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2)?.closest(".tip");
          });
          return [figure.id, marks.length, marks[0]?.querySelector("title").textContent];
        })
    """)
    assert [name for name, _, _ in found] == ["accuracy", "curves", "layers", "path", "barrier"]
    assert all(count > 5 and any(letter.isdigit() for letter in text) for _, count, text in found), found


def test_a_table_is_sorted_by_a_key(driver: Any, page: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    shown(driver, page)
    table = driver.find_element(By.CSS_SELECTOR, "[aria-label='Level by level'] table")
    column = """
        const [table, place] = arguments;
        return [...table.tBodies[0].rows].map(row => row.children[place].textContent.split("\\n")[0]);
    """
    heads = table.find_elements(By.TAG_NAME, "th")
    before = [float(cell.split(" ")[0]) for cell in driver.execute_script(column, table, 2)]
    assert len(before) == 6 and before != sorted(before)
    button = heads[2].find_element(By.TAG_NAME, "button")
    for direction, wanted in (("ascending", sorted(before)), ("descending", sorted(before)[::-1])):
        button.send_keys(Keys.ENTER)
        assert heads[2].get_attribute("aria-sort") == direction
        assert [float(cell.split(" ")[0]) for cell in driver.execute_script(column, table, 2)] == wanted


def test_every_control_is_reached_by_the_keyboard(driver: Any, page: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    shown(driver, page)
    count = driver.execute_script("return document.querySelectorAll('button, [tabindex=\"0\"]').length")
    reached = set()
    for _ in range(count):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        reached.add(driver.switch_to.active_element.id)
    assert len(reached) == count > 20


def test_a_figure_is_saved(driver: Any, page: str, folder: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    shown(driver, page)
    driver.find_element(By.CSS_SELECTOR, "#accuracy button").click()
    file = folder / "accuracy.svg"
    WebDriverWait(driver, 20).until(lambda _: file.exists() and file.stat().st_size)
    text = file.read_text()
    assert text.startswith("<svg") and "var(--" not in text
    driver.get(file.as_uri())
    assert driver.execute_script("return document.documentElement.getBoundingClientRect().width") > 300
    assert driver.get_log("browser") == []
