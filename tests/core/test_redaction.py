"""Where secrets are kept out: errors with all that led to them, logs, records, pages."""

import json
import logging
import traceback

import dspy
import httpx
import pytest

import radio_dspy as radio
from radio_dspy.core import credentials
from radio_dspy.core.credentials import learn
from radio_dspy.core.errors import LanguageModelError, RadioError, SettingsError
from radio_dspy.core.files import write_json
from radio_dspy.core.html import paragraph
from radio_dspy.core.redaction import hide_in, logger_of, redacted, redacted_value, told, watch_logs
from radio_dspy.lm.calls import lm_failure
from radio_dspy.lm.secrets import check_keys, hiding_secrets
from radio_dspy.runs.run import Run
from tests.stub_endpoints import Fault, StubEndpoint

MARK = "sk-MARK-of-redaction-77"


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(credentials, "_KNOWN", credentials._Known())
    learn({"api_key": MARK})


def everything_of(error):
    """What tracebacks show, and all that hangs on the chain whether it is shown or not."""
    found, seen = "".join(traceback.format_exception(error)), set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        found += f"{one!r}{one.args}{vars(one)}"
        waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
    return found


def raised():
    try:
        try:
            raise OSError(5, f"refused {MARK}", f"/tmp/{MARK}")
        except OSError:
            raise dspy.LMAuthError(f"said {MARK}") from None
    except dspy.LMAuthError as error:
        final = ValueError({"detail": [f"Bearer {MARK}"]})
        final.__cause__ = error
        final.body = f"{MARK}"
        final.__notes__ = [f"noted {MARK}"]
        return final


def test_an_error_loses_its_secrets_with_all_that_led_to_it():
    error = raised()
    assert MARK in everything_of(error)
    assert hide_in(error)
    assert MARK not in everything_of(error)
    assert isinstance(error.__cause__, dspy.LMAuthError)


def test_what_cannot_be_changed_is_cut_off():
    class StubbornError(Exception):
        def __str__(self):
            return MARK

    error = ValueError("outer")
    error.__cause__ = StubbornError()
    assert hide_in(error)
    assert error.__cause__ is None
    assert not hide_in(StubbornError())
    with pytest.raises(RadioError, match=r"StubbornError: \*\*\*") as caught, hiding_secrets():
        raise StubbornError
    assert MARK not in "".join(traceback.format_exception(caught.value))


def test_errors_of_this_library_hold_no_secret_and_no_control_character():
    assert str(SettingsError(f"bad {MARK}\x1b[2J\nnext")) == "bad ***\\x1b[2J\nnext"
    failure = lm_failure(f"failed {MARK}", dspy.LMRateLimitError(f"slow {MARK}"))
    assert isinstance(failure, LanguageModelError)
    assert MARK not in everything_of(failure)


def test_what_led_to_an_error_does_not_steer_a_terminal(caplog):
    said = "\x1b[2J\x9b1m\u202eevil\rgood"
    cause = dspy.LMServerError(f"said {said}", provider="x", status=500)
    cause.__context__, cause.lm_response = ValueError({"body": [said]}), said
    failure = lm_failure("failed", cause)
    failure.__cause__ = cause
    logger_of("radio_dspy.tried").warning("it failed", exc_info=OSError(5, said, said))
    shown = "".join(traceback.format_exception(failure)) + caplog.text
    assert "evil" in shown
    assert all(one.isprintable() or one == "\n" for one in shown)
    assert cause.lm_response == said  # nothing is lost where nothing is shown


def test_what_python_keeps_beside_the_arguments():
    with pytest.raises(UnicodeEncodeError) as caught:
        f"Bearer {MARK}\u2011".encode("ascii")
    assert hide_in(caught.value)
    assert MARK not in caught.value.object


def test_an_objects_address_that_hangs_on_an_error():
    error = OSError("refused")
    error.request, error.status = httpx.Request("GET", f"https://host.example/v1?x={MARK}"), [401]
    assert hide_in(error)
    assert MARK not in everything_of(error)
    assert error.status == [401]


def test_a_long_chain_of_tries_is_cut_off():
    error: Exception = ValueError(MARK)
    for number in range(3000):
        error, error.__context__ = KeyError(number), error
    assert hide_in(error)
    assert MARK not in everything_of(error)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("{'Authorization': 'Bearer eyJhbGciOiJIUzI1NiJ9.e30.Zm9v'}", "{'Authorization': 'Bearer ***'}"),
        ("basic thermodynamics, bearer of good-news-for-everyone", None),
    ],
)
def test_a_header_that_nobody_has_told_of(said, shown):
    assert redacted(said) == (shown or said)


def test_an_error_without_secrets_stays_as_it_is():
    error = KeyError("name", 7, ["x"])
    before = error.args
    assert hide_in(error)
    assert error.args is before
    with pytest.raises(KeyError) as caught, hiding_secrets():
        raise error
    assert caught.value is error


def test_records_of_a_log(caplog):
    logger = logger_of("radio_dspy.tried")
    with caplog.at_level(logging.INFO, logger="radio_dspy"):
        logger.info("%s of %d \x1b]0;owned\x07", MARK, 3)
        logger.warning("it failed", exc_info=raised())
        logger.info("%d questions", 4)
    assert MARK not in caplog.text
    assert "\x1b" not in caplog.text
    assert "4 questions" in caplog.text


@pytest.mark.parametrize("name", ["pymilvus.decorators", "psycopg.pool", "chromadb", "uvicorn.error", "mlflow.store"])
def test_records_of_clients_of_stores_and_of_servers(caplog, name):
    logger = logging.getLogger(name)
    watch_logs()
    with caplog.at_level(logging.WARNING, logger=name):
        logger.warning("connecting with token=%s", MARK)
    assert "connecting" in caplog.text
    assert MARK not in caplog.text


@pytest.mark.parametrize("name", ["LiteLLM", "openai._base_client", "httpcore.http11"])
def test_records_of_a_library_that_is_imported_at_the_first_call(monkeypatch, caplog, name):
    monkeypatch.setattr(logging.root.manager, "loggerDict", {})
    watch_logs()
    with caplog.at_level(logging.DEBUG):
        logging.getLogger(name).debug("sent %s", {"authorization": MARK})
    assert "sent" in caplog.text
    assert MARK not in caplog.text


def test_every_file_of_a_run(tmp_path):
    run = Run(tmp_path / "run")
    run.append_record("judged", {"failure": f"said {MARK}", "value": 0.5})
    run.log("stopped", why=[f"{MARK}"])
    run.write_records("groups", [{"query": f"what is {MARK}?"}])
    run.write("report", {"decision": {"of": f"{MARK}"}})
    write_json(tmp_path / "run" / "other.json", {f"{MARK}": 1})
    for path in (tmp_path / "run").iterdir():
        assert MARK not in path.read_text(encoding="utf-8")
        for line in path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else ():
            json.loads(line)
    assert run.read_records("judged")[0]["value"] == 0.5


def test_a_notebook():
    assert paragraph(f"of {MARK}") == "<p>of ***</p>"


def test_records_name_no_address():
    lm = dspy.LM("openai/x", api_base="http://10.7.0.9:8000/v1", api_key="none")
    said = told(OSError("cannot reach http://10.7.0.9:8000/v1/chat at 10.7.0.9:8000 (host='10.7.0.9')"), lm)
    assert "10.7.0.9" not in said
    assert "cannot reach" in said


@pytest.mark.parametrize(
    "settings", [{"api_key": "sk-of-a-file\n"}, {"extra_headers": {"X-Key": "abc\r"}, "api_key": "k"}]
)
def test_a_key_with_a_control_character_is_refused(settings):
    with pytest.raises(SettingsError, match="holds a line break or another control character") as caught:
        check_keys(dspy.LM("openai/x", **settings))
    assert "sk-of-a-file" not in str(caught.value)
    with pytest.raises(SettingsError, match="control character"):
        radio.RemoteEncoder("openai/x", api_key="sk-of-a-file\n")


def test_so_is_one_of_the_environment_and_others_are_taken(monkeypatch):
    check_keys(None, dspy.LM("openai/x", api_key="sk-plain", extra_headers={"X-Title": "Küche"}))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-windows\r")
    with pytest.raises(SettingsError, match="its OPENAI_API_KEY holds a line break"):
        check_keys(dspy.LM("openai/x"))
    check_keys(dspy.LM("openai/x", api_key="none"))


def test_a_hosted_model_whose_name_is_an_address():
    radio.RemoteRerank(f"huggingface/https://host.example/?token={MARK}X")
    assert "X:" not in told(OSError(f"{MARK}X: https://host.example/ is away"))
    assert "host.example" not in told(OSError("https://host.example/ is away"))


@pytest.mark.parametrize("kind", [radio.RemoteEncoder, radio.RemoteRerank])
def test_a_hosted_models_error_and_its_chain(kind):
    with StubEndpoint() as server:
        server.faults.append(Fault(401, text=f"Incorrect key {MARK}X"))
        name, base = ("openai/x", f"{server.url}/v1") if kind is radio.RemoteEncoder else ("cohere/x", server.url)
        model = kind(name, api_base=base, api_key=f"{MARK}X", num_retries=0)
        with pytest.raises(LanguageModelError) as caught:
            model.encode_queries(["why?"]) if kind is radio.RemoteEncoder else model("why?", ["Ice floats."])
    assert MARK not in everything_of(caught.value)


def test_a_secret_at_any_depth():
    learn({"api_key": "DeepSecretKey-998877"})
    for depth in (3, 20, 5000):
        value = "key=DeepSecretKey-998877"
        for _ in range(depth):
            value = {"x": [value]}
        found = redacted_value(value)
        while isinstance(found, dict):
            found = found["x"] if isinstance(found["x"], str) else found["x"][0]
        assert found in ("key=***", "***")


@pytest.mark.parametrize(
    "said",
    [
        "no answer from postgres://anna:pw-MARK-77@db/all",
        "no https://gate.example/v1?api_key=pw-MARK-77",
        "Bearer pw-MARK-77-of-nobody",
    ],
)
def test_a_traceback_has_no_secret_that_shows_by_its_form_alone(said, caplog):
    logger_of("radio_dspy.tried").warning("it failed", exc_info=OSError(5, said))
    assert "it failed" in caplog.text
    assert "MARK" not in caplog.text
