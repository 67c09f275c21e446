"""A real headless Chromium for tests of the report: found on this machine, driven through its own driver."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
DRAWN_S = 30.0
"""A page on a busy machine gets so long to draw its plots."""

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


def find_chromium() -> str | None:
    """Where Chromium is, with its driver beside it on the path; None where either is missing."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    return found if shutil.which("chromedriver") else None


@contextmanager
def browser(width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Any]:
    """A fresh browser, driven by selenium, with a profile of its own; closed in the end."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(find_chromium())
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            look(driver, width, height, dark)
            yield driver
        finally:
            driver.quit()


def look(driver: Any, width: int = 1280, height: int = 900, dark: bool = False, media: str = "") -> None:
    """Give the page a width in CSS pixels, a colour scheme, and a medium (`print`, or the screen)."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    wishes = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
    features = [{"name": name, "value": value} for name, value in wishes.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features, "media": media})


def drawn(driver: Any) -> None:
    """Wait until the page says that all plots of the block it shows are drawn. Raises TimeoutError."""
    until = time.monotonic() + DRAWN_S
    while not driver.execute_script("return document.querySelector('article[data-drawn]:not([hidden])') !== null"):
        if time.monotonic() > until:
            raise TimeoutError(f"plots were not drawn in {DRAWN_S:.0f} s; console: {driver.get_log('browser')}")
        time.sleep(0.05)
