"""Say what every page of the site weighs, and how soon its largest part is painted on a slow machine.

Weight is the sum of the `gzip -9` sizes of all that a page requests until the network is quiet. The largest
contentful paint is measured on loopback, with the processor slowed down four times, in a fresh profile; of some runs
the median. Nothing else should run meanwhile.
"""

import functools
import gzip
import statistics
import urllib.parse

SLOWER, RUNS = 4, 5
PAINT = """() => new Promise(say => new PerformanceObserver(list => say(list.getEntries().at(-1).startTime))
    .observe({ type: "largest-contentful-paint", buffered: true }))"""


@functools.cache
def packed(path):
    """Return the size of a file after gzip -9, in bytes."""
    return len(gzip.compress(path.read_bytes(), 9))


def weight(browser, address, name, site):
    """Return {file: bytes} for all that a page requests."""
    page, asked = browser.new_page(), []
    page.set_default_timeout(600_000)  # against hanging
    page.on("request", lambda request: asked.append(request.url.removeprefix(address)))
    page.goto(f"{address}/{name}.html", wait_until="networkidle")
    page.close()
    return weighed(asked, site)


def weighed(asked, site):
    """Return {file: bytes} for the addresses that a page asked for, each once."""
    files = dict.fromkeys(urllib.parse.urlsplit(url).path.lstrip("/") for url in asked)
    return {path: packed(site / path) for path in files if (site / path).is_file()}


def paint(browser, address, name):
    """Return when the largest part of a page was painted, in seconds, on a processor slowed down."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    page.goto(f"{address}/{name}.html", wait_until="load")
    page.wait_for_timeout(1000)
    seconds = page.evaluate(PAINT) / 1000
    context.close()
    return seconds


def main():
    from build_book import SITE, toc_files

    from tests.browser import launched, served

    print(f"{'page':32} {'MB':>6} {'paint, s':>9}")
    with served(SITE) as address, launched() as browser:
        for name in toc_files():
            heavy = sum(weight(browser, address, name, SITE).values()) / 1e6
            soon = statistics.median(paint(browser, address, name) for _ in range(RUNS))
            print(f"{name:32} {heavy:6.3f} {soon:9.2f}")


if __name__ == "__main__":
    main()
