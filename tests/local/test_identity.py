"""Identity tokens of the local service, checked by the same code that checks Google's."""

from __future__ import annotations

import base64
import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from appengine_compat.core.model import HttpRequest, OidcToken, Task
from appengine_compat.handler import oidc, oidc_keys, refusals
from appengine_compat.handler.refusals import Refused
from appengine_compat.local import identity as module
from appengine_compat.local import store_snapshot
from appengine_compat.local.http_transport import HttpTransport
from appengine_compat.local.identity import DISCOVERY_PATH, KEYS_PATH, MOUNTS, Identity
from appengine_compat.local.store import Store
from tests.local import raw_target
from tests.local.conftest import QUEUE, Local

ACCOUNT = "worker@project.iam.gserviceaccount.com"


class Quiet(WSGIRequestHandler):
    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def identity() -> Iterator[Identity]:
    store = Store(None)
    with make_server("127.0.0.1", 0, lambda *_: [], handler_class=Quiet) as server:
        identity = Identity(store, f"http://127.0.0.1:{server.server_port}/")
        server.set_app(identity.documents())
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield identity
        server.shutdown()
        thread.join()
    store.close()


@pytest.fixture
def believing(identity, monkeypatch) -> Iterator[None]:
    monkeypatch.setenv("APPENGINE_COMPAT_OIDC_ISSUER", identity.issuer)
    monkeypatch.setenv("APPENGINE_COMPAT_SERVICE_ACCOUNT", ACCOUNT)
    monkeypatch.delenv("APPENGINE_COMPAT_TARGETS", raising=False)
    oidc_keys.forget()
    yield
    oidc_keys.forget()


def environ(url_host="app.example.com", path="/work") -> dict:
    environ = {"HTTP_HOST": url_host, "PATH_INFO": path, "QUERY_STRING": "a=b"}
    setup_testing_defaults(environ)
    return environ


def parts(token: str) -> tuple[dict, dict]:
    header, claims, _ = token.split(".")
    return tuple(json.loads(base64.urlsafe_b64decode(each + "==")) for each in (header, claims))


def test_the_handler_believes_a_token_of_the_issuer_that_is_set(identity, believing):
    token = identity.token(ACCOUNT, "http://app.example.com/work?a=b")
    assert oidc.verified_account(token, environ()) == ACCOUNT


def test_a_token_for_another_audience_or_account_is_refused(identity, believing):
    with pytest.raises(Refused) as refused:
        oidc.verified_account(identity.token(ACCOUNT, "http://elsewhere/"), environ())
    assert refused.value.refusal is refusals.OIDC_AUDIENCE
    token = identity.token("other@project", "http://app.example.com/work?a=b")
    with pytest.raises(Refused) as refused:
        oidc.verified_account(token, environ())
    assert refused.value.refusal is refusals.OIDC_ACCOUNT


def test_a_token_of_another_database_is_refused(identity, believing):
    store = Store(None)
    forged = Identity(store, identity.issuer).token(ACCOUNT, "http://app.example.com/work?a=b")
    store.close()
    with pytest.raises(Refused):
        oidc.verified_account(forged, environ())


def test_who_expects_googles_issuer_does_not_believe_it(identity, believing, monkeypatch):
    known = oidc_keys.find(parts(identity.token(ACCOUNT, "x"))[0]["kid"], identity.issuer)
    monkeypatch.delenv("APPENGINE_COMPAT_OIDC_ISSUER")
    monkeypatch.setattr(oidc_keys, "find", lambda *_: known)
    with pytest.raises(Refused) as refused:
        oidc.verified_account(identity.token(ACCOUNT, "x"), environ())
    assert refused.value.refusal is refusals.OIDC_ISSUER


def test_the_claims_are_googles_but_for_the_issuer(identity):
    before = int(time.time())
    header, claims = parts(identity.token(ACCOUNT, "https://h/x"))
    assert header.keys() == {"alg", "kid", "typ"}
    assert (header["alg"], header["typ"]) == ("RS256", "JWT")
    assert before <= claims["iat"] <= time.time()
    assert claims["exp"] == claims["iat"] + 3600
    assert claims["sub"] == claims["azp"]
    assert claims["sub"].isdigit()
    assert len(claims["sub"]) == 21
    assert (claims["iss"], claims["aud"]) == (identity.issuer, "https://h/x")
    assert (claims["email"], claims["email_verified"]) == (ACCOUNT, True)


def test_an_account_keeps_its_subject_and_no_other_has_it(identity):
    first, again = (parts(identity.token(ACCOUNT, each))[1] for each in ("a", "b"))
    other = parts(identity.token("other@p", "a"))[1]
    assert first["sub"] == again["sub"] != other["sub"]


def test_a_token_is_given_out_again_for_a_while_and_then_made_anew(identity, monkeypatch):
    token = identity.token(ACCOUNT, "a")
    assert identity.token(ACCOUNT, "a") == token
    assert identity.token(ACCOUNT, "b") != token
    now = time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + 301)
    assert parts(identity.token(ACCOUNT, "a"))[1]["iat"] == int(now + 301)


def test_many_audiences_are_not_remembered_for_ever(identity, monkeypatch):
    monkeypatch.setattr(module, "_MOST_KEPT", 3)
    for number in range(6):
        identity.token(ACCOUNT, str(number))
    assert len(identity._kept) == 3


def test_the_key_stays_with_the_database_and_is_no_part_of_an_export(tmp_path):
    path, exported = tmp_path / "tasks.db", tmp_path / "export.db"
    store = Store(path)
    key_id = parts(Identity(store, "http://i").token(ACCOUNT, "a"))[0]["kid"]
    store_snapshot.export(store, exported)
    store_snapshot.clear(store, [], 0)
    store.close()
    assert b"PRIVATE KEY" not in exported.read_bytes()
    store = Store(path)
    assert parts(Identity(store, "http://i").token(ACCOUNT, "a"))[0]["kid"] == key_id
    store.close()


def test_two_services_on_one_file_have_one_key(tmp_path):
    stores = [Store(tmp_path / "tasks.db") for _ in range(2)]
    tokens = [Identity(store, "http://i").token(ACCOUNT, "a") for store in stores]
    assert len({parts(token)[0]["kid"] for token in tokens}) == 1
    for store in stores:
        store.close()


def test_an_issuer_of_another_address_leads_to_the_keys_where_it_was_asked():
    store = Store(None)
    identity = Identity(store, "https://accounts.google.com")
    asked = {"HTTP_HOST": "tasks:8124", "PATH_INFO": DISCOVERY_PATH}
    setup_testing_defaults(asked)
    answer = b"".join(identity.documents()(asked, lambda *_: None))
    store.close()
    assert json.loads(answer)["issuer"] == "https://accounts.google.com"
    assert json.loads(answer)["jwks_uri"] == f"http://tasks:8124{KEYS_PATH}"


def test_the_documents_are_those_that_libraries_look_for(identity):
    with urllib.request.urlopen(identity.issuer + DISCOVERY_PATH) as answer:
        document = json.load(answer)
        assert "max-age=3600" in answer.headers["Cache-Control"]
    assert document["issuer"] == identity.issuer
    assert document["jwks_uri"] == identity.issuer + KEYS_PATH
    with urllib.request.urlopen(document["jwks_uri"]) as answer:
        (key,) = json.load(answer)["keys"]
    assert (key["kty"], key["alg"], key["use"]) == ("RSA", "RS256", "sig")
    assert key.keys() == {"kty", "alg", "use", "kid", "n", "e"}
    assert MOUNTS == (DISCOVERY_PATH, KEYS_PATH)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("HEAD", KEYS_PATH, "200"), ("POST", KEYS_PATH, "405"), ("GET", "/oauth2/v3/other", "404")],
)
def test_nothing_else_is_answered(identity, method, path, status):
    request = {"REQUEST_METHOD": method, "PATH_INFO": path, "SCRIPT_NAME": "", "QUERY_STRING": ""}
    setup_testing_defaults(request)
    statuses = []
    result = validator(identity.documents())(
        request, lambda line, *_: statuses.append(line[:3]) or (lambda _: None)
    )
    list(result)
    result.close()
    assert statuses == [status]


def test_tasks_carry_the_token_that_they_ask_for(identity, believing):
    local = Local(Store(None))
    with raw_target.serving() as target:
        token = OidcToken(service_account_email=ACCOUNT)
        request = HttpRequest(
            url=f"{target.url}/work?a=b", token=token, headers={"authorization": "forged"}
        )
        local.service.create_task(str(QUEUE), Task(name="", request=request))
        transport = HttpTransport(identity=identity)
        local.service.start(transport, threads=1)
        local.settle()
        transport.close()
        sent = target.headers()["authorization"].removeprefix("Bearer ")
        host = f"127.0.0.1:{target.port}"
        assert oidc.verified_account(sent, environ(host)) == ACCOUNT
    assert local.service.close(5) == []
