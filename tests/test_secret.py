"""Secrets: in no file under runs, in no output, whatever goes wrong."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import SMALL, command

from xp import secret
from xp.error import UserError

PASSWORD = "tr0ub4dor&3"
ENVIRONMENT = {
    "HF_TOKEN": "hf_QwErTyUiOpAsDfGhJkLzXcVbNm",
    "MLFLOW_TRACKING_TOKEN": "9f8e7d6c5b4a",
    "AWS_ACCESS_KEY_ID": "an access key of somebody",
    "AWS_SECRET_ACCESS_KEY": "wJalr/XUtnFEMI+K7MDENG\\bPx",
    "OWN_API_KEY": 'key "with" quotes',
    "SERVICE_PASSWORD": "correct horse",
}
SECRETS = [*ENVIRONMENT.values(), PASSWORD, "tr0ub4dor%263", "wJalr", "sig5igsig", "ghp_0123456789abcdefghij"]

LEAK = """
import os
import sys

from xp.peft import Peft


class Leak(Peft, name="leak"):
    \"\"\"Tells all that it knows.\"\"\"

    def apply(self, network, purpose):
        known = [os.environ[name] for name in %r]
        try:
            raise KeyError(known)
        except KeyError as error:
            raise RuntimeError(
                "401 for https://joe:tr0ub4dor%%263@host/x?a=1&sig=sig5igsig with ghp_0123456789abcdefghij: "
                + " ".join(known)
            ) from error
""" % list(ENVIRONMENT)  # noqa: UP031 - the code has braces


@pytest.fixture
def leak(corpus: Path) -> Path:
    (corpus / "leak.py").write_text(LEAK)
    (corpus / "conf" / "peft").mkdir(parents=True)
    (corpus / "conf" / "peft" / "leak.yaml").write_text("name: leak\n")
    return corpus


def assert_nowhere(folder: Path, *texts: str) -> None:
    """No secret is in these texts, nor in any file of a folder, whatever its form."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert [file for file in files if file.name.endswith(".db")]
    assert [file for file in files if file.name == "run.yaml"]
    contents = {str(file): file.read_bytes() for file in files} | {
        f"output {number}": text.encode() for number, text in enumerate(texts)
    }
    for name, content in contents.items():
        for each in SECRETS:
            assert each.encode() not in content, f"{each} is in {name}"
            assert each.replace('"', '\\"').encode() not in content, f"{each} is in {name}"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("http://joe:pw@host/x", "http://***@host/x"),
        ("of postgresql+psycopg2://joe:a/b@c@host:5432/db?x=1 ()", "of postgresql+psycopg2://***@host:5432/db?x=1 ()"),
        ("https://ghtoken@host", "https://***@host"),
        ("https://h/x?token=abc&a=1&X-Amz-Signature=0f", "https://h/x?token=***&a=1&X-Amz-Signature=***"),
        ("/api?access_token=abc", "/api?access_token=***"),
        ("{'Authorization': 'Basic am9lOnB3'}", "{'Authorization': 'Basic ***'}"),
        ("use hf_QwErTyUiOpAsDfGhJkLzXcVbNm.", "use ***."),
        ("sk-proj-0123456789abcdefghij AKIAIOSFODNN7EXAMPLE", "*** ***"),
        ("-----BEGIN RSA PRIVATE KEY-----\nab\n-----END RSA PRIVATE KEY-----", "***"),
    ],
)  # fmt: skip
def test_a_secret_is_known_by_its_form(text: str, hidden: str) -> None:
    assert secret.found(text)
    assert secret.redacted(text) == hidden
    assert not secret.found(hidden)


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:///runs/mlflow.db",
        "http://127.0.0.1:5000/api@v2",
        "hf://datasets/a/b@refs%2F/x",
        "hf_internal-testing/tiny",
        "ssh://git@github.com/x",
        "postgresql://joe@host/db",
        "task-classification-with-a-long-name-1",
        "a basic understanding",
        "write to me@host or see http://host",
        "the tokens=[SEP]",
        "x?tokenizer=5",
        "https://h/x?split=train",
    ],
)
def test_what_is_no_secret_is_left_as_it_is(text: str) -> None:
    assert not secret.found(text)
    assert secret.redacted(text) == text


def test_the_environment_knows_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (ENVIRONMENT | {"SHORT_TOKEN": "abc", "SSL_KEY": str(tmp_path), "MODEL": "a_long_name"}).items():
        monkeypatch.setenv(name, value)
    assert secret.redacted(f"abc {tmp_path} a_long_name") == f"abc {tmp_path} a_long_name"
    for value in ENVIRONMENT.values():
        assert secret.redacted(f"of {value!r} {value}") == "of '***' ***" or '"' in value or "\\" in value
        assert value not in secret.redacted(f"{value!r} {value}")
    assert str(UserError("no 9f8e7d6c5b4a")) == "no ***"


@pytest.mark.parametrize(
    ("key", "override"),
    [
        ("data.train", "data.train=https://joe:%s@host/x.csv"),
        ("data.train", "data.train=['train.jsonl','https://h/x.csv?sig=%s']"),
        ("model.config", "model.config.s3_%s=1"),
        ("model.config.a.b", "model.config.a={b: 'http://joe:%s@h'}"),
        ("tracking.experiment", "tracking.experiment=of-%s"),
        ("runs_folder", "runs_folder=runs/%s"),
    ],
)
def test_a_secret_in_a_setting_is_refused(
    key: str, override: str, compose: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have to be written down, and to write down another value would be another run."""
    monkeypatch.setenv("OWN_TOKEN", "n0t4nyone")
    with pytest.raises(UserError, match=f"^{key}: it holds .* leave it out") as caught:
        compose(override.replace("%s", "n0t4nyone"))
    assert "n0t4nyone" not in str(caught.value)
    assert not list(Path("runs").glob("*/run.yaml"))


def test_inputs_are_settings_too(compose: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"^inputs: it holds a token, "):
        compose("command=predict", "inputs=[a text, 'my key is hf_QwErTyUiOpAsDfGhJkLzXcVbNm']")


@pytest.mark.parametrize(
    ("uri", "clean", "environment"),
    [
        (
            "http://joe:a%2Fb@host:5000/x",
            "http://host:5000/x",
            {"MLFLOW_TRACKING_USERNAME": "joe", "MLFLOW_TRACKING_PASSWORD": "a/b"},
        ),
        ("postgresql://joe:a@b@host/db", "postgresql://joe@host/db", {"PGPASSWORD": "a@b"}),
        ("mysql+mysqldb://joe:pw@host/db", "mysql+mysqldb://joe@host/db", {"MYSQL_PWD": "pw"}),
        ("http://host/a@b", "http://host/a@b", {}),
    ],
)
@pytest.mark.parametrize("written", ["override", "yaml"])
def test_an_address_loses_its_password_to_the_environment(
    uri: str, clean: str, environment: dict[str, str], written: str, compose: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch, corpus: Path,
) -> None:  # fmt: skip
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "PGPASSWORD", "MYSQL_PWD"):
        monkeypatch.setenv(name, "")  # So that it is put back, whatever is set there.
        monkeypatch.delenv(name)
    given = f"tracking.uri='{uri}'"
    if written == "yaml":
        (corpus / "conf" / "tracking").mkdir(parents=True)
        (corpus / "conf" / "tracking" / "ours.yaml").write_text(f"defaults: [local]\nuri: '{uri}'\n")
        given = "tracking=ours"
    else:
        assert secret.without(["seed=1", given]) == ["seed=1", f"tracking.uri='{clean}'"]
    run = compose(given)
    assert run.tracking.uri == run.values()["tracking"]["uri"] == clean
    assert {name: os.environ[name] for name in environment} == environment


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mysql+pymysql://joe:tr0ub4dor@h/db", "tracking.uri: mysql.pymysql takes no password .*read_default_file"),
        ("http://tr0ub4dor@h", "tracking.uri: a lone token in a URL reaches nobody; put it into MLFLOW_TRACKING_TOKEN"),
        ("http://h?token=tr0ub4dor", "tracking.uri: it holds a token"),
        ("htp://joe:tr0ub4dor@h", r"tracking.uri=htp://\*\*\*@h: this is no address of MLflow"),
        ("postgresql://h/db?password=tr0ub4dor", "tracking.uri: it holds a token"),
    ],
)
def test_an_address_whose_password_nobody_would_find_is_refused(
    uri: str, message: str, compose: Callable[..., Any]
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        compose(*secret.without([f"tracking.uri='{uri}'"]))
    assert "tr0ub4dor" not in str(caught.value)


class Guarded(BaseHTTPRequestHandler):
    """Lets nobody in, and says to whom it has not."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        Guarded.asked.append(self.headers["Authorization"] or "")
        self.send_response(401)
        self.end_headers()
        self.wfile.write(f"you are not {Guarded.asked[-1]}".encode())

    do_POST = do_GET

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def guarded() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Guarded)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_password_reaches_the_server_and_nobody_else(guarded: int, corpus: Path) -> None:
    uri = f"http://joe:tr0ub4dor%263@127.0.0.1:{guarded}"
    ended = command(*SMALL, f"tracking.uri={uri}", folder=corpus)
    expected = base64.b64encode(f"joe:{PASSWORD}".encode()).decode()
    assert set(Guarded.asked) == {f"Basic {expected}"}
    assert f"http://127.0.0.1:{guarded}" in ended.stderr
    assert "Traceback" not in ended.stderr
    (corpus / "runs" / "no.db").touch()
    assert_nowhere(corpus / "runs", ended.stdout, ended.stderr)
    assert expected not in ended.stdout + ended.stderr


def test_secrets_are_nowhere_after_runs_that_went_well_and_ill(leak: Path) -> None:
    """Training, predicting, failing with all of them in the error; alone and as jobs of a sweep."""
    single = command(*SMALL, "imports=[leak]", "peft=leak", folder=leak, **ENVIRONMENT)
    assert single.returncode == 1
    assert "RuntimeError: 401 for https://***@host/x?a=1&sig=*** with ***: *** *** *** *** *** ***" in single.stderr
    assert "Traceback" in single.stderr
    sweep = command("-m", *SMALL, "imports=[leak]", "peft=none,leak", "seed=1", folder=leak, **ENVIRONMENT)
    assert sweep.returncode == 1
    assert "[1/2] peft=none: eval/accuracy" in sweep.stdout
    (told,) = [line for line in sweep.stdout.splitlines() if line.startswith("[2/2] peft=leak: ")]
    assert "RuntimeError: 401 for https://***@host/x" in told
    (log,) = leak.glob("runs/sweep-*/1.log")
    assert "raise KeyError" in log.read_text()
    assert_nowhere(leak / "runs", single.stdout, single.stderr, sweep.stdout, sweep.stderr)
