"""The configuration of the status page: nobody opens it to the network by accident, and no secret stands in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError
from sqlalchemy.engine import make_url

from dicom_node.errors import NodeError
from dicom_node.settings import load
from dicom_node.web.open import impatient
from dicom_node.web.settings import Role, TrustedProxy, User, Web

if TYPE_CHECKING:
    from pathlib import Path

ANNA = {"name": "keeper", "token_env": "A_TOKEN"}
PROXY = {"hosts": ["192.0.2.0/24"], "user_header": "X-Remote-User"}
NODE = "node: {ae_title: N, data_dir: d}\nreceive: {allow_unknown_peers: true}\ntasks: [x]\n"


def test_it_is_off_and_local_unless_somebody_says_otherwise() -> None:
    """Switched on alone, it serves this machine, and no more than the answer to a probe."""
    assert not Web().enabled
    assert Web(enabled=True).is_local


@pytest.mark.parametrize(
    ("web", "told"),
    [
        ({"host": "0.0.0.0"}, "expected users, or trusted_proxy with user_header"),
        ({"host": "::"}, "expected users, or trusted_proxy with user_header"),
        ({"host": "192.0.2.7", "users": [ANNA]}, "would pass in the clear"),
        ({"host": "localhost"}, "does not appear to be an IPv4 or IPv6 address"),
        ({"users": [ANNA, ANNA]}, "name given more than once: keeper"),
        ({"users": [{"name": "keeper"}]}, "exactly one of token_env and token_file"),
        ({"users": [{"name": "keeper", "token": "secret"}]}, "Extra inputs are not permitted"),
        ({"users": [{**ANNA, "name": "a\nb"}]}, "String should match pattern"),
        ({"trusted_proxy": {"user_header": "X-Remote-User"}}, "user_header needs hosts"),
        ({"trusted_proxy": {"hosts": ["proxy"]}}, "does not appear to be an IPv4 or IPv6 network"),
        ({"names": ["https://node/"]}, "expected host names without scheme and port"),
    ],
)
def test_a_mistake_is_named(web: dict[str, Any], told: str) -> None:
    """Each kind of mistake has words of its own."""
    with pytest.raises(ValidationError, match=told):
        Web.model_validate({"enabled": True, **web})


@pytest.mark.parametrize(
    "web",
    [
        {"host": "0.0.0.0", "users": [ANNA], "trusted_proxy": {"hosts": ["192.0.2.1"]}},
        {"host": "0.0.0.0", "users": [ANNA], "allow_plain_http": True},
        {"host": "::", "trusted_proxy": PROXY},
        {"host": "::1", "users": [ANNA]},
    ],
)
def test_these_ways_to_log_in_are_enough(web: dict[str, Any]) -> None:
    """Tokens behind a proxy that ends TLS, the proxy's own login, or plain HTTP that somebody asked for."""
    Web.model_validate({"enabled": True, **web})


def test_a_token_comes_from_the_environment_or_a_file_and_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong with it is told without it."""
    file = tmp_path / "token"
    file.write_text("from-a-file-0123456789\n", encoding="utf-8")
    monkeypatch.setenv("A_TOKEN", "from-the-environment-01")
    assert User(name="keeper", token_env="A_TOKEN").token() == "from-the-environment-01"
    assert User(name="guest", token_file=file).token() == "from-a-file-0123456789"
    monkeypatch.setenv("A_TOKEN", "too-short")
    with pytest.raises(NodeError, match="A_TOKEN: expected a token of 20 characters or more, found 9") as caught:
        User(name="keeper", token_env="A_TOKEN").token()
    assert "too-short" not in str(caught.value)
    with pytest.raises(NodeError, match="cannot be read: FileNotFoundError"):
        User(name="guest", token_file=tmp_path / "none").token()
    with pytest.raises(NodeError, match="found 0"):
        User(name="keeper", token_env="NOT_SET_ANYWHERE").token()


def test_a_token_file_is_relative_to_the_configuration(tmp_path: Path) -> None:
    """As every path in it."""
    path = tmp_path / "node.yaml"
    path.write_text(f"{NODE}web: {{users: [{{name: keeper, token_file: secrets/keeper}}]}}\n", encoding="utf-8")
    assert load(path).web.users[0].token_file == tmp_path / "secrets" / "keeper"


def test_of_those_a_proxy_lets_in_only_the_named_may_act() -> None:
    """Unless nobody is named: then all may."""
    assert TrustedProxy.model_validate(PROXY).role_of("guest") is Role.ADMIN
    some = TrustedProxy.model_validate({**PROXY, "admins": ["keeper"]})
    assert (some.role_of("keeper"), some.role_of("guest")) == (Role.ADMIN, Role.VIEWER)


def test_a_database_server_that_hangs_is_given_up_soon() -> None:
    """The page's own connections have limits; what the site's URL says stands, and so does SQLite's."""
    assert impatient("sqlite:////data/ledger.sqlite") == "sqlite:////data/ledger.sqlite"
    limits = make_url(impatient("postgresql+psycopg://node:secret@db/ledger")).query
    assert limits == {"connect_timeout": "5", "options": "-c statement_timeout=15s"}
    own = make_url(impatient("postgresql+psycopg://node:secret@db/ledger?connect_timeout=9"))
    assert own.query["connect_timeout"] == "9"
    assert own.password == "secret"
