from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from appengine_compat import settings
from appengine_compat.errors import ConfigError
from appengine_compat.settings import SETTINGS, AllowedNames, Setting

# Setting → texts and the values that they stand for.
GOOD: dict[str, list[tuple[str, Any]]] = {
    "backend": [("cloudtasks", "cloudtasks"), ("Embedded", "embedded"), (" rq ", "rq")],
    "project": [("my-project", "my-project")],
    "location": [("us-central1", "us-central1")],
    "targets": [
        ("https://app.example.com/", {"": "https://app.example.com"}),
        ("https://app.example.com/?a=b", {"": "https://app.example.com/?a=b"}),
        ("appengine", {"": "appengine"}),
        ("ngrok", {"": "ngrok"}),
        (
            "default=https://a.example.com, api = http://localhost:8083,",
            {"default": "https://a.example.com", "api": "http://localhost:8083"},
        ),
        (
            "api=https://a.example.com,https://rest.example.com",
            {"api": "https://a.example.com", "": "https://rest.example.com"},
        ),
    ],
    "service_account": [
        ("tasks@p.iam.gserviceaccount.com", ("tasks@p.iam.gserviceaccount.com",)),
        ("a@b.c, d@e.f,", ("a@b.c", "d@e.f")),
    ],
    "audience": [("https://app.example.com", "https://app.example.com")],
    "signing_keys": [
        ("k1:0123456789abcdef", (("k1", "0123456789abcdef"),)),
        (
            "new:0123456789abcde:, old:fedcba9876543210",
            (("new", "0123456789abcde:"), ("old", "fedcba9876543210")),
        ),
    ],
    "signatures": [("off", "off"), ("Require", "require"), ("accept-unsigned", "accept-unsigned")],
    "signature_max_age": [("60", 60), ("2678400", 2678400)],
    "allowed_callables": [
        ("app.tasks, app.models.User", AllowedNames(("app.tasks", "app.models.User"), False)),
        ("log-only", AllowedNames((), True)),
        ("app.*,log-only", AllowedNames(("app",), True)),
    ],
    "oidc_issuer": [("http://127.0.0.1:8124", "http://127.0.0.1:8124")],
    "trust_proxy": [("1", True), ("true", True), ("Yes", True), ("0", False), ("no", False)],
    "task_paths": [("/tasks/", ("/tasks/",)), ("/tasks/, /cron/", ("/tasks/", "/cron/"))],
    "queue_yaml": [("config/queue.yaml", "config/queue.yaml")],
    "db": [("/var/lib/app/tasks.db", "/var/lib/app/tasks.db")],
    "threads": [("1", 1), ("1000", 1000)],
    "pickle_protocol": [("0", 0), ("5", 5)],
    "redis_url": [("redis://localhost:6379/0", "redis://localhost:6379/0")],
}

# Setting → texts that are refused, and what the error must say beside variable and allowed.
BAD: dict[str, list[tuple[str, str]]] = {
    "backend": [("memory", "'memory'"), ("cloud tasks", "'cloud tasks'")],
    "targets": [
        ("app.example.com", "'app.example.com' has no http:// or https:// address"),
        ("api=", "'api=' has no http:// or https:// address"),
        ("a=https://x,a=https://y", "'a' is given twice"),
        ("https://x,https://y", "'the address for all services' is given twice"),
    ],
    "signing_keys": [
        ("just-a-secret-without-id", "pair 1 is not id:secret"),
        ("k1:0123456789abcdef,k2:short", "pair 2 is not id:secret"),
        (":0123456789abcdef", "pair 1 is not id:secret"),
        ("k:0123456789abcdef,k:fedcba9876543210", "a key id is given twice"),
    ],
    "signatures": [("on", "'on'")],
    "signature_max_age": [("59", "'59'"), ("1d", "'1d'"), ("99999999", "'99999999'")],
    "allowed_callables": [("app tasks", "'app tasks' is no dotted name"), ("a..b", "'a..b'")],
    "oidc_issuer": [("accounts.example.com", "'accounts.example.com'")],
    "trust_proxy": [("maybe", "'maybe'")],
    "task_paths": [("tasks/", "'tasks/'")],
    "threads": [(text, repr(text)) for text in ("0", "1001", "-1", "2.5", "many", "\u0663")],
    "pickle_protocol": [(text, repr(text)) for text in ("6", "-1", "highest")],
}

ANY_TEXT = {
    "project", "location", "service_account", "audience", "queue_yaml", "db", "redis_url",
}  # fmt: skip


def named(name: str) -> Setting[Any]:
    return next(setting for setting in SETTINGS if setting.name == name)


def cases(table: dict[str, list[tuple[str, Any]]]) -> list[Any]:
    return [
        pytest.param(named(name), text, expected, id=f"{name}-{number}")
        for name, rows in table.items()
        for number, (text, expected) in enumerate(rows)
    ]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    yield
    settings.configure(**dict.fromkeys(GOOD))


def test_every_setting_has_cases_here() -> None:
    names = {setting.name for setting in SETTINGS}
    assert set(GOOD) == names
    assert set(BAD) | ANY_TEXT == names


def test_names_follow_from_variables() -> None:
    for setting in SETTINGS:
        assert setting.variable == f"APPENGINE_COMPAT_{setting.name.upper()}"
        assert setting.sentence.endswith(".")


@pytest.mark.parametrize(("setting", "text", "value"), cases(GOOD))
class TestAllowedValues:
    def test_come_from_the_environment(
        self, setting: Setting[Any], text: str, value: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert not setting.is_set
        monkeypatch.setenv(setting.variable, text)
        assert setting.get() == value
        assert setting.is_set
        settings.check()

    def test_come_from_code_and_win(
        self, setting: Setting[Any], text: str, value: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(setting.variable, "not looked at")
        settings.configure(**{setting.name: text})
        assert setting.get() == value
        assert setting.is_set

    def test_are_taken_back_with_none(self, setting: Setting[Any], text: str, value: Any) -> None:
        settings.configure(**{setting.name: text})
        settings.configure(**{setting.name: None})
        assert setting.get() == setting.default
        assert not setting.is_set


@pytest.mark.parametrize(("setting", "text", "said"), cases(BAD))
class TestRefusedValues:
    def test_are_named_with_what_is_allowed(
        self, setting: Setting[Any], text: str, said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(setting.variable, text)
        for refused in (setting.get, settings.check):
            with pytest.raises(ConfigError) as caught:
                refused()
            message = str(caught.value)
            assert message.startswith(f"{setting.variable} is ")
            assert said in message
            assert f"set it to {setting.allowed}, or unset it." in message
            assert caught.value.setting == setting.variable

    def test_are_refused_from_code_and_change_nothing(
        self, setting: Setting[Any], text: str, said: str
    ) -> None:
        with pytest.raises(ConfigError):
            settings.configure(db="elsewhere.db", **{setting.name: text})
        assert settings.DB.get() == settings.DB.default
        assert setting.get() == setting.default


@pytest.mark.parametrize("text", ["", "   "])
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_an_empty_variable_is_an_unset_one(
    setting: Setting[Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(setting.variable, text)
    assert setting.get() == setting.default
    assert not setting.is_set


def test_a_given_environment_is_read_instead_of_the_process_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("APPENGINE_COMPAT_THREADS", "3")
    assert settings.THREADS.get({"APPENGINE_COMPAT_THREADS": "5"}) == 5
    assert settings.THREADS.get({}) == settings.THREADS.default


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("APPENGINE_COMPAT_TARGET", "did you mean APPENGINE_COMPAT_TARGETS?"),
        ("APPENGINE_COMPAT_BACKND", "did you mean APPENGINE_COMPAT_BACKEND?"),
        ("APPENGINE_COMPAT_", "there is no such setting"),
    ],
)
def test_unknown_variables_are_errors(variable: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"docs/configuration\.md") as caught:
        settings.check({variable: "1", "PATH": "/bin"})
    assert str(caught.value).startswith(f"{variable} is set, but there is no such setting")
    assert said in str(caught.value)
    assert caught.value.setting == variable


def test_an_unknown_variable_like_none_of_ours_gets_no_guess() -> None:
    with pytest.raises(ConfigError) as caught:
        settings.check({"APPENGINE_COMPAT_FOO": "1"})
    assert "did you mean" not in str(caught.value)


def test_variables_of_others_are_none_of_our_business() -> None:
    settings.check({"APPENGINE_COMPATIBLE": "1", "GAE_ENV": "standard", "APPENGINE": ""})


def test_configure_refuses_unknown_names() -> None:
    with pytest.raises(ConfigError, match=r"no setting 'thread' .did you mean threads\?"):
        settings.configure(thread=4)


def test_configure_takes_numbers_as_they_are() -> None:
    settings.configure(threads=4)
    assert settings.THREADS.get() == 4


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        pytest.param(setting, text, id=f"{setting.name}-{number}")
        for setting in SETTINGS
        if setting.is_secret
        for number, (text, _) in enumerate(BAD.get(setting.name, []))
    ],
)
def test_secrets_are_never_shown(setting: Setting[Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        setting.read(text)
    # Not in the message, not in what a traceback would print of its causes.
    shown = str(caught.value) + repr(caught.value.__cause__)
    secrets = {part.rpartition(":")[2] for part in text.split(",")}
    assert not [secret for secret in secrets if secret in shown]
    assert "not shown" in shown


def test_settings_with_secrets_are_marked() -> None:
    assert {setting.name for setting in SETTINGS if setting.is_secret} == {
        "signing_keys",
        "redis_url",
    }


def test_names_are_given_once() -> None:
    for field in ("name", "variable"):
        for first, second in itertools.combinations(SETTINGS, 2):
            assert getattr(first, field) != getattr(second, field)
