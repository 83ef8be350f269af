"""The example's services as three real processes, as `make demo-services` starts them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.acceptance import demo_script
from tests.acceptance.demo_script import Demo

SCRIPT = demo_script.TOP / "examples" / "demo_services.py"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    started = Demo(SCRIPT, tmp_path_factory.mktemp("demo") / "guestbook")
    try:
        for service in ("default", "py3-web", "py3-tasks-io"):
            started.wait_for(rf"^{service} +\| Ready")
        yield started
    finally:
        code = started.end()
        assert code == 0, started.output
    assert len(re.findall(r"\| Ending\.$", started.output, re.MULTILINE)) == 3


def test_a_task_stays_with_the_process_of_its_service(demo: Demo) -> None:
    demo.post("/sign")
    demo.wait_for(r"^default +\| .*work\.thank\(\d+, name='Somebody'\)  attempt 1  200")
    demo.wait_for(r"^py3-web +\| .*POST /tasks/wall  attempt 1  200")


def test_targets_are_reached_in_other_processes(demo: Demo) -> None:
    demo.post("/points")
    demo.post("/notify")
    demo.wait_for(r"^py3-tasks-io +\| .*GET /tasks/math/do/points/2019nyny  attempt 1  200")
    demo.wait_for(r"^py3-tasks-io +\| .*work\.send_notification\(.*attempt 1  200")


def test_retries_happen_in_the_process_of_the_service_too(demo: Demo) -> None:
    demo.post("/flaky")
    demo.wait_for(r"^default +\| .*work\.import_feed.*attempt 3  200")
    assert not re.search(r"^py3-\S+ +\| .*work\.import_feed", demo.output, re.MULTILINE)


def test_make_starts_it() -> None:
    assert demo_script.recipe_of("demo-services").split()[-1] == "examples/demo_services.py"
