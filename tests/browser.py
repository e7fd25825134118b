"""A real browser for tests: headless Chromium through Selenium.

    from tests.browser import browser, needs_browser, see

    @needs_browser
    def test_page(browser): ...

A test module imports the fixture by name; `see` waits until a text is on the page.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

needs_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="there is no Chromium with its driver"
)

_FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
--disable-background-networking --disable-component-update --disable-dev-shm-usage
--no-proxy-server --window-size=1500,1000"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    """One browser with an empty profile for the tests of a module."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in _FLAGS.split():
        options.add_argument(flag)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options.add_argument(f"--user-data-dir={profile}")
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        try:
            yield driver
        finally:
            driver.quit()


def see(browser: Chrome, *texts: str, seconds: float = 30) -> str:
    """Wait until all the texts are to be seen on the page; the page's text.

    Raises:
        AssertionError: naming the texts that did not come, and what was there instead.
    """
    from selenium.common.exceptions import TimeoutException, WebDriverException
    from selenium.webdriver.support.ui import WebDriverWait

    def page(driver: Chrome) -> str:
        return str(driver.execute_script("return document.body ? document.body.innerText : ''"))

    def missing(driver: Chrome) -> list[str]:
        shown = page(driver)
        return [text for text in texts if text not in shown]

    wait = WebDriverWait(browser, seconds, ignored_exceptions=[WebDriverException])
    try:
        wait.until(lambda driver: not missing(driver))
    except TimeoutException:
        raise AssertionError(f"not seen: {missing(browser)} in:\n{page(browser)[:3000]}") from None
    return page(browser)
