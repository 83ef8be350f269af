"""Who is let in, by which way, and what the refused are told."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest

from appengine_compat import settings
from appengine_compat.core.headers import LOCAL_TOKEN_HEADER
from appengine_compat.handler import door, refusals
from appengine_compat.handler.door import Trust, Verdict
from appengine_compat.handler.refusals import Refusal
from appengine_compat.local import tokens

SECRET = b"a secret of this test, long enough"
TASK = {"HTTP_X_APPENGINE_QUEUENAME": "default", "HTTP_X_APPENGINE_TASKNAME": "t1"}
PATH = "/_ah/queue/deferred"


def environ(**values: str) -> dict[str, object]:
    return {"REQUEST_METHOD": "POST", "PATH_INFO": PATH, "REMOTE_ADDR": "127.0.0.1", **values}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GAE_ENV", "GAE_APPLICATION", "GAE_INSTANCE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def app_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAE_ENV", "standard")
    monkeypatch.setenv("GAE_APPLICATION", "s~project")


@pytest.fixture
def active_stub() -> Iterator[None]:
    door.trust_tests(True)
    yield
    door.trust_tests(False)


def local_token(**parts: str) -> str:
    return tokens.make(SECRET, **{"queue_id": "default", "task_id": "t1", "path": PATH, **parts})


class TestEveryone:
    def test_nothing_shown_is_401_and_says_what_to_set(self) -> None:
        found = door.verdict(environ())
        assert (found.trusted, found.known_by, found.status) == (False, None, 401)
        assert found.code == "AEC-NO-CREDENTIALS"
        assert "APPENGINE_COMPAT_SERVICE_ACCOUNT" in found.reason
        assert found.text == f"{found.code}: {found.reason}\n"

    def test_old_headers_alone_let_nobody_in(self) -> None:
        forged = environ(
            **TASK, HTTP_X_APPENGINE_USER_IP="0.1.0.2", REMOTE_ADDR="0.1.0.2",
            SERVER_SOFTWARE="Development/2.0",
        )  # fmt: skip
        assert door.verdict(forged).status == 401

    def test_the_verdict_is_remembered(self) -> None:
        request = environ()
        first = door.verdict(request)
        request["HTTP_X_AEC_LOCAL_TOKEN"] = "too late"
        assert door.verdict(request) is first

    @pytest.mark.parametrize("forged", ["yes", True, {"trusted": True}])
    def test_what_is_not_a_verdict_is_not_remembered_as_one(self, forged: object) -> None:
        request = environ()
        request[door.VERDICT_KEY] = forged
        assert not door.verdict(request).trusted

    def test_no_header_has_the_name_of_the_memory(self) -> None:
        assert not door.VERDICT_KEY.startswith("HTTP_")
        assert not door.ADDRESS_KEY.startswith("HTTP_")


class TestLocalService:
    @pytest.fixture(autouse=True)
    def secret(self) -> None:
        tokens.register_secret(SECRET)

    @pytest.mark.parametrize("family", ["APPENGINE", "CLOUDTASKS"])
    def test_its_token_opens(self, family: str) -> None:
        request = environ(HTTP_X_AEC_LOCAL_TOKEN=local_token())
        request[f"HTTP_X_{family}_QUEUENAME"] = "default"
        request[f"HTTP_X_{family}_TASKNAME"] = "t1"
        found = door.verdict(request)
        assert (found.trusted, found.known_by, found.status) == (True, Trust.LOCAL, 0)

    def test_the_path_is_the_whole_one(self) -> None:
        request = environ(
            **TASK, HTTP_X_AEC_LOCAL_TOKEN=local_token(path="/app/x"),
            SCRIPT_NAME="/app", PATH_INFO="/x",
        )  # fmt: skip
        assert door.verdict(request).trusted

    @pytest.mark.parametrize(
        "other", [{"queue_id": "q2"}, {"task_id": "t2"}, {"path": "/other"}, {"path": PATH + "/"}]
    )
    def test_a_token_of_another_task_does_not(self, other: dict[str, str]) -> None:
        found = door.verdict(environ(**TASK, HTTP_X_AEC_LOCAL_TOKEN=local_token(**other)))
        assert (found.status, found.code) == (403, "AEC-LOCAL-TOKEN")

    @pytest.mark.parametrize("token", ["", "x", "é", "\udc80", "0" * 64, "a" * 100_000])
    def test_any_other_text_does_not(self, token: str) -> None:
        assert door.verdict(environ(**TASK, HTTP_X_AEC_LOCAL_TOKEN=token)).status == 403

    def test_the_header_is_the_one_of_the_contract(self) -> None:
        assert LOCAL_TOKEN_HEADER == "X-AEC-Local-Token"


@pytest.mark.usefixtures("app_engine")
class TestAppEngine:
    @pytest.mark.parametrize("address", ["127.0.0.1", "169.254.1.1", "172.17.0.1", "", "::1"])
    def test_a_task_from_the_front_end_is_believed(self, address: str) -> None:
        request = environ(**TASK, HTTP_X_APPENGINE_USER_IP="0.1.0.2", REMOTE_ADDR=address)
        found = door.verdict(request)
        assert (found.trusted, found.known_by) == (True, Trust.APP_ENGINE)
        assert "default" in found.who

    @pytest.mark.parametrize(
        "address", ["203.0.113.5", "8.8.8.8", "::ffff:8.8.8.8", "2001:4860::1", "x", "0.1.0.3"]
    )
    def test_another_way_in_is_refused_whatever_the_headers(self, address: str) -> None:
        request = environ(
            **TASK, REMOTE_ADDR=address,
            HTTP_X_APPENGINE_USER_IP="0.1.0.2", HTTP_X_FORWARDED_FOR="0.1.0.2",
        )  # fmt: skip
        assert door.verdict(request).code == "AEC-APP-ENGINE-ADDRESS"

    def test_the_address_is_the_transports_even_when_it_was_rewritten(self) -> None:
        request = environ(**TASK, REMOTE_ADDR="8.8.8.8")
        door.rewrite_address(request, "0.1.0.2")
        assert request["REMOTE_ADDR"] == "0.1.0.2"
        assert door.verdict(request).code == "AEC-APP-ENGINE-ADDRESS"

    def test_an_administrators_task_headers_are_not_a_task(self) -> None:
        request = environ(**TASK, HTTP_X_APPENGINE_USER_IP="192.0.2.1")
        assert door.verdict(request).code == "AEC-APP-ENGINE-SOURCE"

    def test_half_of_the_headers_is_no_task(self) -> None:
        request = environ(HTTP_X_APPENGINE_TASKNAME="t", HTTP_X_APPENGINE_USER_IP="0.1.0.2")
        assert door.verdict(request).code == "AEC-APP-ENGINE-HEADERS"

    def test_cloud_tasks_headers_prove_nothing_there(self) -> None:
        request = environ(HTTP_X_CLOUDTASKS_TASKNAME="t", HTTP_X_CLOUDTASKS_QUEUENAME="q")
        assert door.verdict(request).status == 401

    def test_the_old_development_server_is_not_app_engine(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GAE_ENV", "localdev")
        monkeypatch.setenv("GAE_INSTANCE", "0")
        assert not door.verdict(environ(**TASK, HTTP_X_APPENGINE_USER_IP="0.1.0.2")).trusted


@pytest.mark.usefixtures("active_stub")
class TestWhileAStubIsActive:
    @pytest.mark.parametrize(
        "values", [{"SERVER_SOFTWARE": "Development/1.0"}, {"REMOTE_ADDR": "0.1.0.2"}]
    )
    def test_the_old_rule_holds(self, values: dict[str, str]) -> None:
        found = door.verdict(environ(**{**TASK, **values}))
        assert (found.trusted, found.known_by) == (True, Trust.TEST)

    def test_the_refusals_have_the_old_words(self) -> None:
        assert "'X-AppEngine-Taskname' was not set" in door.verdict(environ()).reason
        refused = door.verdict(environ(**TASK))
        assert (refused.status, refused.code) == (403, "AEC-TEST-ADDRESS")
        assert "did not originate from Task Queue" in refused.reason

    def test_it_ends_with_the_stub(self) -> None:
        door.trust_tests(False)
        assert not door.verdict(environ(**TASK, REMOTE_ADDR="0.1.0.2")).trusted


class TestRefusals:
    def test_are_counted_and_logged_a_few_times_a_minute(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(refusals, "_windows", {})
        before = refusals.counts().get("AEC-LOCAL-TOKEN", 0)
        with caplog.at_level(logging.WARNING):
            for _ in range(50):
                door.verdict(environ(HTTP_X_AEC_LOCAL_TOKEN="no"))
        assert refusals.counts()["AEC-LOCAL-TOKEN"] == before + 50
        assert 1 <= len(caplog.records) <= 5

    def test_no_caller_writes_lines_of_the_log(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(refusals, "_windows", {})
        with caplog.at_level(logging.WARNING):
            door.verdict(environ(PATH_INFO="/x\nERROR forged", REQUEST_METHOD="A\rB"))
        (record,) = caplog.records
        assert "\n" not in record.getMessage()
        assert "\r" not in record.getMessage()

    @pytest.mark.parametrize("refusal", refusals.ALL, ids=lambda refusal: refusal.code)
    def test_each_names_what_would_mend_it(self, refusal: Refusal) -> None:
        is_in_app_engines_words = refusal.code.startswith("AEC-TEST-")
        known = {"GAE_ENV", *(setting.variable for setting in settings.SETTINGS)}
        named = set(re.findall(r"APPENGINE_COMPAT_\w+|GAE_ENV", refusal.reason))
        assert named <= known
        assert named or is_in_app_engines_words or "Check the clock" in refusal.reason

    def test_every_code_is_stable(self) -> None:
        codes = [refusal.code for refusal in refusals.ALL]
        assert len(set(codes)) == len(codes)
        for refusal in refusals.ALL:
            assert refusal.code.startswith("AEC-")
            assert refusal.status in (401, 403)
            assert len(refusal.reason) < 300

    def test_a_verdict_cannot_be_changed(self) -> None:
        with pytest.raises(AttributeError):
            Verdict(False).trusted = True  # type: ignore[misc]
