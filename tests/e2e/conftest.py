"""Fixtures: `site` for one test, `shared_site` for a module; both judge exits and reports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from lib import env, routes
from lib.site import Site

USED_SITES = pytest.StashKey[list[Site]]()


def pytest_configure(config: pytest.Config) -> None:
    if not env.BINARY.exists() and not config.option.collectonly:
        raise pytest.UsageError(f"{env.BINARY} is not there: build it, or set SLUICE_BIN")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("rss") and env.BINARY.exists() and env.sanitized():
            item.add_marker(pytest.mark.skip(reason="memory means nothing under a sanitizer"))


def remember(request: pytest.FixtureRequest, site: Site) -> None:
    request.node.stash.setdefault(USED_SITES, []).append(site)


def finish(site: Site) -> None:
    faults = site.close()
    assert not faults, "; ".join(faults)


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """Starts gateways and workers for one test and checks at its end that all stopped well."""
    made = Site(tmp_path)
    remember(request, made)
    yield made
    finish(made)


@pytest.fixture(scope="module")
def shared_site(request: pytest.FixtureRequest,
                tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The same for all tests of a module that do not disturb each other."""
    made = Site(tmp_path_factory.mktemp(request.module.__name__))
    remember(request, made)
    yield made
    finish(made)


@pytest.fixture(autouse=True)
def _no_left_overs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Scripts that a failed test left queued must not answer the next one."""
    yield
    for site in sites_of(request.node):
        for fake in site.fakes:
            fake.queue.clear()


def sites_of(item: pytest.Item) -> list[Site]:
    module = item.getparent(pytest.Module)
    own = item.stash.get(USED_SITES, [])
    return own + (module.stash.get(USED_SITES, []) if module else [])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        for site in sites_of(item):
            report.sections += site.report()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [r for key in ("passed", "failed") for r in terminalreporter.stats.get(key, [])]
    if any("test_routes" in r.nodeid for r in reports):
        terminalreporter.section("routes that answer 501 until their part lands")
        for row in routes.LATER:
            terminalreporter.write_line(f"{row.method:6} {row.path}")
