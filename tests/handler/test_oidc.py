"""Google's tokens: which are believed, and by which check the others fail."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from appengine_compat import platform
from appengine_compat.handler import door, oidc, oidc_keys
from appengine_compat.handler.door import Trust, Verdict
from appengine_compat.local import ngrok

from .conftest import ACCOUNT, AUDIENCE, KEYS, Issuer, base64url, part


def asked(token: str, **values: Any) -> Verdict:
    return door.verdict(
        {
            "REQUEST_METHOD": "POST", "PATH_INFO": "/_ah/queue/deferred", "QUERY_STRING": "a=b",
            "HTTP_HOST": "app.example.com", "wsgi.url_scheme": "https",
            "HTTP_AUTHORIZATION": f"Bearer {token}", "HTTP_X_CLOUDTASKS_TASKNAME": "t",
            "HTTP_X_CLOUDTASKS_QUEUENAME": "q", **values,
        }
    )  # fmt: skip


def test_googles_own_issuer_and_keys_are_constants() -> None:
    assert oidc.GOOGLE_ISSUERS == ("https://accounts.google.com", "accounts.google.com")
    assert oidc_keys.GOOGLE_KEYS_URL == "https://www.googleapis.com/oauth2/v3/certs"


def test_a_true_token_opens(issuer: Issuer) -> None:
    found = asked(issuer.token())
    assert (found.trusted, found.known_by, found.who) == (True, Trust.OIDC, ACCOUNT)


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer  "])
def test_the_scheme_is_written_in_any_way(issuer: Issuer, scheme: str) -> None:
    assert asked("", HTTP_AUTHORIZATION=f"{scheme} {issuer.token()}").trusted


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iss": "https://accounts.google.com"}, "AEC-OIDC-ISSUER"),
        ({"iss": "https://evil.example"}, "AEC-OIDC-ISSUER"),
        ({"iss": None}, "AEC-OIDC-ISSUER"),
        ({"iss": ["https://accounts.google.com"]}, "AEC-OIDC-ISSUER"),
        ({"exp": 1}, "AEC-OIDC-EXPIRED"),
        ({"exp": None}, "AEC-OIDC-EXPIRED"),
        ({"exp": "never"}, "AEC-OIDC-EXPIRED"),
        ({"exp": True}, "AEC-OIDC-EXPIRED"),
        ({"exp": float("nan")}, "AEC-OIDC-EXPIRED"),
        ({"exp": float("inf")}, "AEC-OIDC-EXPIRED"),
        ({"exp": 10**400}, "AEC-OIDC-EXPIRED"),
        ({"iat": 9_999_999_999}, "AEC-OIDC-EXPIRED"),
        ({"iat": "now"}, "AEC-OIDC-EXPIRED"),
        ({"nbf": 9_999_999_999}, "AEC-OIDC-EXPIRED"),
        ({"aud": "https://other.example.com"}, "AEC-OIDC-AUDIENCE"),
        ({"aud": AUDIENCE + "/"}, "AEC-OIDC-AUDIENCE"),
        ({"aud": [AUDIENCE]}, "AEC-OIDC-AUDIENCE"),
        ({"aud": None}, "AEC-OIDC-AUDIENCE"),
        ({"email": "evil@project.iam.gserviceaccount.com"}, "AEC-OIDC-ACCOUNT"),
        ({"email": ACCOUNT.upper()}, "AEC-OIDC-ACCOUNT"),
        ({"email": None}, "AEC-OIDC-EMAIL"),
        ({"email": [ACCOUNT]}, "AEC-OIDC-EMAIL"),
        ({"email_verified": False}, "AEC-OIDC-EMAIL"),
        ({"email_verified": "true"}, "AEC-OIDC-EMAIL"),
        ({"email_verified": None}, "AEC-OIDC-EMAIL"),
    ],
)
def test_each_claim_is_checked(issuer: Issuer, changes: dict[str, Any], code: str) -> None:
    found = asked(issuer.token(**changes))
    assert (found.status, found.code) == (403, code)


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"alg": "RS512"}, {"alg": "none"}])
def test_another_algorithm_is_refused_though_signed(issuer: Issuer, header: Any) -> None:
    assert asked(issuer.token(header=header)).code == "AEC-OIDC-ALGORITHM"


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None])
def test_an_unsigned_token_is_refused(issuer: Issuer, algorithm: Any) -> None:
    token = f"{part({'alg': algorithm, 'kid': 'a'})}.{part(issuer.claims())}."
    assert asked(token).code == "AEC-OIDC-ALGORITHM"


def test_the_public_key_is_no_shared_secret(issuer: Issuer) -> None:
    public = (
        KEYS["a"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    for algorithm in ("HS256", "RS256"):
        signed = f"{part({'alg': algorithm, 'kid': 'a'})}.{part(issuer.claims())}"
        digest = hmac.new(public, signed.encode(), hashlib.sha256).digest()
        assert not asked(f"{signed}.{base64url(digest)}").trusted


def test_a_tampered_token_is_refused(issuer: Issuer) -> None:
    header, claims, signature = issuer.token(email="evil@example.com").split(".")
    assert asked(f"{header}.{part(issuer.claims())}.{signature}").code == "AEC-OIDC-SIGNATURE"
    assert asked(f"{header}.{claims}.{signature[:-8]}AAAAAAAA").code == "AEC-OIDC-SIGNATURE"
    assert asked(f"{header}.{claims}.").code == "AEC-OIDC-SIGNATURE"


def test_a_key_of_someone_else_is_refused(issuer: Issuer) -> None:
    assert asked(issuer.token("b")).code == "AEC-OIDC-KEY"
    assert asked(issuer.token("b", header={"kid": "a"})).code == "AEC-OIDC-SIGNATURE"
    assert asked(issuer.token(header={"kid": None})).code == "AEC-OIDC-KEY"


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "...", "a.b", "a.b.c", "é.é.é", "{}.{}.{}", "a" * 20_000, "a" * 9_000 + "..",
     f"{part([])}.{part({})}.x", f"{base64url(b'[' * 5000)}.x.y", "a.b.c, Bearer d.e.f"],
)  # fmt: skip
def test_what_is_no_token_is_refused(issuer: Issuer, token: str) -> None:
    assert asked(token).code == "AEC-OIDC-MALFORMED"
    assert issuer.fetches == 0


def test_a_remedy_is_told_but_never_what_was_expected(
    issuer: Issuer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from appengine_compat.handler import refusals

    monkeypatch.setattr(refusals, "_windows", {})
    found = asked(issuer.token(aud="https://other.example.com"))
    assert "APPENGINE_COMPAT_AUDIENCE" in found.reason
    assert AUDIENCE not in found.text
    assert AUDIENCE in caplog.text
    assert ACCOUNT not in asked(issuer.token(email="evil@example.com")).text


def test_without_accounts_nobody_is_believed_and_no_key_fetched(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("APPENGINE_COMPAT_SERVICE_ACCOUNT")
    found = asked(issuer.token())
    assert (found.status, found.code) == (403, "AEC-OIDC-NO-ACCOUNT-SET")
    assert "APPENGINE_COMPAT_SERVICE_ACCOUNT" in found.reason
    assert issuer.fetches == 0


class TestAudience:
    URL = "https://app.example.com/_ah/queue/deferred?a=b"

    @pytest.fixture(autouse=True)
    def unset(self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("APPENGINE_COMPAT_AUDIENCE")
        for variable in ("K_SERVICE", "GAE_ENV"):
            monkeypatch.delenv(variable, raising=False)

    def test_by_default_it_is_the_requests_own_url_or_its_host(self, issuer: Issuer) -> None:
        assert asked(issuer.token(aud=self.URL)).trusted
        assert asked(issuer.token(aud="https://app.example.com")).trusted
        for other in (
            "https://app.example.com/",
            self.URL + "c",
            self.URL.replace("https", "http"),
        ):
            assert asked(issuer.token(aud=other)).code == "AEC-OIDC-AUDIENCE"

    def test_the_path_is_quoted_as_the_task_has_it(self, issuer: Issuer) -> None:
        url = "https://app.example.com/a%20b/%C3%A9;x=1"
        path = "/a b/é;x=1".encode().decode("latin-1")
        assert asked(issuer.token(aud=url), PATH_INFO=path, QUERY_STRING="").trusted

    @pytest.mark.parametrize("variable", ["REQUEST_URI", "RAW_URI"])
    def test_or_as_the_server_has_it(self, issuer: Issuer, variable: str) -> None:
        token = issuer.token(aud="https://app.example.com/a%2fb?c=%7e")
        values = {"PATH_INFO": "/a/b", "QUERY_STRING": "c=%7e"}
        assert not asked(token, **values).trusted
        assert asked(token, **values, **{variable: "/a%2fb?c=%7e"}).trusted

    def test_forwarded_headers_count_behind_a_trusted_proxy_only(
        self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = issuer.token(aud=self.URL)
        behind = {
            "HTTP_HOST": "10.0.0.1:8080", "wsgi.url_scheme": "http",
            "HTTP_X_FORWARDED_PROTO": "https", "HTTP_X_FORWARDED_HOST": "app.example.com",
        }  # fmt: skip
        assert asked(token, **behind).code == "AEC-OIDC-AUDIENCE"
        monkeypatch.setenv("APPENGINE_COMPAT_TRUST_PROXY", "1")
        assert asked(token, **behind).trusted

    def test_cloud_run_ends_the_encryption_itself(
        self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("K_SERVICE", "app")
        behind = {"wsgi.url_scheme": "http", "HTTP_X_FORWARDED_PROTO": "https"}
        assert asked(issuer.token(aud=self.URL), **behind).trusted

    def test_no_host_header_lets_in_a_token_meant_for_another_address(
        self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_TARGETS", "default=https://app.example.com")
        elsewhere = issuer.token(aud=self.URL.replace("app.", "other."))
        assert asked(elsewhere, HTTP_HOST="other.example.com").code == "AEC-OIDC-AUDIENCE"
        assert asked(issuer.token(aud=self.URL), HTTP_HOST="10.0.0.1").trusted
        assert asked(issuer.token(aud=AUDIENCE)).trusted

    def test_a_tunnel_is_known_by_the_address_that_its_agent_tells(
        self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_TARGETS", "ngrok")
        monkeypatch.setattr(ngrok, "public_address", lambda: "https://abc.ngrok.app")
        # The tunnel ends the encryption, so what arrives is http.
        arrives = {"wsgi.url_scheme": "http", "HTTP_HOST": "abc.ngrok.app"}
        assert asked(issuer.token(aud="https://abc.ngrok.app"), **arrives).trusted
        elsewhere = issuer.token(aud="https://other.example.com")
        found = asked(elsewhere, **{**arrives, "HTTP_HOST": "other.example.com"})
        assert found.code == "AEC-OIDC-AUDIENCE"

    def test_without_an_agent_it_is_told_why_no_token_fits(
        self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_TARGETS", "ngrok")
        monkeypatch.setattr(ngrok, "AGENT", "127.0.0.1:1")
        arrives = {"wsgi.url_scheme": "http", "HTTP_HOST": "abc.ngrok.app"}
        token = issuer.token(aud="https://abc.ngrok.app")
        assert asked(token, **arrives).code == "AEC-OIDC-AUDIENCE"
        assert "start one (ngrok http 8080)" in caplog.text

    def test_a_cloud_run_services_own_address_counts_beside_the_tables(
        self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = "https://app-1.europe-west3.run.app"
        monkeypatch.setenv("APPENGINE_COMPAT_TARGETS", "worker=https://worker.example.com")
        assert asked(issuer.token(aud=own)).code == "AEC-OIDC-AUDIENCE"
        monkeypatch.setattr(platform, "own_url", lambda: own)
        assert asked(issuer.token(aud=own)).trusted
        assert asked(issuer.token(aud=self.URL)).code == "AEC-OIDC-AUDIENCE"


class TestKeys:
    def test_they_are_fetched_once(self, issuer: Issuer) -> None:
        for _ in range(5):
            assert asked(issuer.token()).trusted
        assert issuer.fetches == 1

    def test_many_threads_fetch_them_once(self, issuer: Issuer) -> None:
        token, found = issuer.token(), []
        threads = [
            threading.Thread(target=lambda: found.append(asked(token).trusted)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [True] * 8
        assert issuer.fetches == 1

    def test_a_new_key_is_found_once_the_pause_is_over(
        self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert asked(issuer.token()).trusted
        issuer.published["b"] = KEYS["b"]
        monkeypatch.setattr(oidc_keys, "_SECONDS_BETWEEN_FETCHES", 0.0)
        assert asked(issuer.token("b")).trusted
        assert issuer.fetches == 2

    def test_invented_keys_do_not_make_it_fetch_again_and_again(self, issuer: Issuer) -> None:
        for number in range(20):
            assert not asked(issuer.token(header={"kid": f"invented{number}"})).trusted
        assert issuer.fetches == 1

    def test_they_are_fetched_anew_after_their_lifetime(
        self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(oidc_keys, "_SECONDS_BETWEEN_FETCHES", 0.0)
        monkeypatch.setattr(oidc_keys, "_SHORTEST_LIFETIME", 0.0)
        issuer.cache_control = "max-age=0"
        token = issuer.token()
        assert asked(token).trusted
        issuer.published = {"b": KEYS["b"]}
        assert asked(token).code == "AEC-OIDC-KEY"
        assert issuer.fetches == 2

    def test_an_issuer_that_cannot_be_reached_is_told(self, issuer: Issuer) -> None:
        issuer.is_broken = True
        found = asked(issuer.token())
        assert (found.status, found.code) == (403, "AEC-OIDC-KEYS-UNREACHABLE")
        issuer.is_broken = False
        assert asked(issuer.token()).code == "AEC-OIDC-KEYS-UNREACHABLE"
        oidc_keys.forget()
        assert asked(issuer.token()).trusted

    def test_one_key_that_cannot_be_read_does_not_hide_the_others(
        self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from . import conftest

        real = conftest.jwk
        monkeypatch.setattr(
            conftest,
            "jwk",
            lambda name, key: (
                {"kid": "x", "kty": "RSA", "n": 1} if name == "b" else real(name, key)
            ),
        )
        issuer.published["b"] = KEYS["b"]
        assert asked(issuer.token()).trusted

    @pytest.mark.parametrize(
        ("cache_control", "age", "seconds"),
        [
            ("public, max-age=19000, must-revalidate", "100", 18900.0),
            ("max-age=5", "0", 60.0),
            ("max-age=99999999", "", 86400.0),
            ("no-cache", "0", 3600.0),
            ("", "x", 3600.0),
        ],
    )
    def test_their_lifetime_is_what_the_issuer_says_within_bounds(
        self, cache_control: str, age: str, seconds: float
    ) -> None:
        assert oidc_keys._lifetime_seconds(cache_control, age) == seconds


@given(st.one_of(st.text(), st.binary().map(lambda raw: raw.decode("latin-1"))), st.booleans())
@example("..", True)
@hypothesis_settings(
    max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_no_text_crashes_or_opens(issuer: Issuer, text: str, is_claims: bool) -> None:
    token = f"{part({'alg': 'RS256', 'kid': 'a'})}.{text}.{text}" if is_claims else text
    assert asked(token).status == 403


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    ),
    st.sampled_from(["iss", "aud", "email", "email_verified", "exp", "iat", "nbf"]),
)
@hypothesis_settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_no_claim_of_another_kind_crashes_or_opens(issuer: Issuer, value: Any, name: str) -> None:
    if json.dumps(value) == "true" and name == "email_verified":
        return
    found = asked(issuer.token(**{name: value}))
    may_be_missing = name in ("iat", "nbf") and not isinstance(value, (bool, str, list, dict))
    assert may_be_missing or found.status == 403
