"""What is a secret: names of settings and variables, values, and the forms in which others repeat them."""

import base64
import html
import json
from itertools import count
from urllib.parse import quote, quote_plus

import dspy
import httpx
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from radio_dspy.core import credentials
from radio_dspy.core.credentials import learn
from radio_dspy.core.redaction import redacted
from radio_dspy.core.secret_names import PLACEHOLDERS, is_secret_name

FORMS = {
    "as it is": str,
    "between quotes of Python's": repr,
    "in ASCII": ascii,
    "as bytes": lambda text: repr(text.encode()),
    "in JSON": json.dumps,
    "in JSON of other scripts": lambda text: json.dumps(text, ensure_ascii=False),
    "in JSON inside JSON": lambda text: json.dumps(json.dumps(text)),
    "in an address": lambda text: f"https://host.example/?q={quote(text, safe='')}",
    "in a form": quote_plus,
    "in a page": html.escape,
    "in Gson's JSON": lambda text: json.dumps(text).replace("=", "\\u003d"),
    "in Mustache's page": lambda text: html.escape(text).replace("/", "&#x2F;").replace("=", "&#x3D;"),
    "in XML": lambda text: html.escape(text).replace("&#x27;", "&apos;"),
    "in hex": lambda text: text.encode().hex(),
    "in base64": lambda text: base64.b64encode(text.encode()).decode(),
    "behind a short name in Basic": lambda text: f"Basic {base64.b64encode(f'me:{text}'.encode()).decode()}",
    "behind another name in Basic": lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
    "between spaces": lambda text: f"\n  {text}\t",
    "in Go's JSON": lambda text: json.dumps(text, ensure_ascii=False).translate(
        {ord(sign): f"\\u00{ord(sign):x}" for sign in "&<>"}
    ),
    "in PHP's JSON": lambda text: json.dumps(text).replace("/", "\\/"),
    "in a template's page": lambda text: html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
    "in an address in an address": lambda text: quote(quote(text, safe=""), safe=""),
}


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """What a test learns, no other one knows."""
    monkeypatch.setattr(credentials, "_KNOWN", credentials._Known())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example("000000000'0\"", "as bytes")
@example('pass"word\\with/every thing+=&<é', "as it is")
@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Z"]), min_size=12, max_size=40),
    st.sampled_from(sorted(FORMS)),
)
def test_a_secret_is_hidden_in_whatever_form_it_comes(secret, form):
    assume(secret.lower() not in PLACEHOLDERS)
    learn({"api_key": f" {secret}\n"})
    shown = redacted(FORMS[form](secret))
    assert secret not in shown
    assert "***" in shown


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=200))
def test_a_text_without_secrets_stays_as_it_is(text):
    learn({"api_key": "sk-\x00in-no-text\x00"})
    assert redacted(text.replace("@", "").replace("=", "")) == text.replace("@", "").replace("=", "")


@pytest.mark.parametrize(
    "name",
    """MY_TOKEN_2 pgpassword GH_PAT openaiApiKey X-Api-Key client_secret SSH_PASSPHRASE PROMPT_SECURITY_API_KEY
    MASTERKEY DBPASS REDISPASS dbPass MYPAT DBPWD DB_PW GCP_CREDS BASICAUTH SESSIONCOOKIE STOP_SECRET MAX_TOKENS_SECRET
    ADMIN_PASSCODE SENTRYDSN MASK_API_KEY NPM_AUTH_TOKEN""".split(),  # noqa: SIM905
)
def test_names_of_secrets(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    """PATH KEYBOARD TOKENIZERS_PARALLELISM PATCH max_tokens stop_token COMPAT LS_COLORS PASSAGES PASSAGE_COUNT COMPASS
    PASS_THROUGH BYPASS MONKEY TURKEY_REGION HOTKEYS EXPAT_HOME PATTERN PATIENT KEYNOTE max_new_tokens prompt_tokens
    stop_token_ids sort_key prompt_cache_key AUTHOR AUTHORITY SIGNAL TOKENIZER SECRETARY COOKBOOK""".split(),  # noqa: SIM905
)
def test_names_of_others(name):
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("SLACK_BOT_TOKEN", "xoxb-12ab34cd56", "xoxb-12ab34cd56"),
        ("my_secret", "correct-horse-battery", "correct-horse-battery"),
        ("PGPASSWORD", "swordfish", "swordfish"),
        ("CACHE_PASSWORD", "hunter2hunter2\r", "hunter2hunter2"),
        ("DATABASE_URL", "postgres://me:Tr0ub4dor@db.example/rag", "Tr0ub4dor"),
        ("HTTPS_PROXY", "http://me:Tr0ub4dor@proxy.example:80", "Tr0ub4dor"),
        ("STORE", "AccountName=kitchen;AccountKey=QUJDREVGR0g", "QUJDREVGR0g"),
        ("OPENAI_API_KEY", '"sk-MARK-0123456789"', "sk-MARK-0123456789"),
        ("MISTRAL_API_KEY", "export KEY=sk-MARK-0123456789", "sk-MARK-0123456789"),
        ("GEMINI_API_KEYS", "AIza-other-0001112, sk-MARK-0123456789", "sk-MARK-0123456789"),
        ("ACCOUNT_JSON", '{"type": "service", "private_key": "MIIEvQIBADANBgkq"}', "MIIEvQIBADANBgkq"),
        ("DB_PASS", "hunter2hunter2", "hunter2hunter2"),
        ("SNOWFLAKE_JWT", "sk-MARK-0123456", "sk-MARK-0123456"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20sk-MARK-0123456,x-a=b", "sk-MARK-0123456"),
        ("CUSTOM_HEADERS", "X-Gateway: sk-MARK-0123456\nX-Team: search", "sk-MARK-0123456"),
        ("HTTPS_PROXY", "me:hunter2hunter2@proxy.example:80", "hunter2hunter2"),
        ("PROMPT_SECURITY_API_KEY", "MARK-0123456", "MARK-0123456"),
        ("MASTERKEY", "MARK-0123456", "MARK-0123456"),
        ("DBPASS", "swordfish", "swordfish"),
        ("REDISPASS", "hunter2hunter2", "hunter2hunter2"),
        ("MYPAT", "MARK-0123456", "MARK-0123456"),
        ("MILVUS_TOKEN", "root:hunter2hunter2", "hunter2hunter2"),
        ("CONNINFO", "host=db user=me password='swordfish'", "swordfish"),
        ("ODBC", "Driver={PG};Uid=me;Pwd={hunter2;hunter2}", "hunter2;hunter2"),
        ("CURL_OPTIONS", "-H 'Authorization: Bearer MARK-0123456789abc'", "MARK-0123456789abc"),
        ("SITE_COOKIE", "theme=dark; session=MARK-0123456", "MARK-0123456"),
        ("SLACK_WEBHOOK_URL", "https://hooks.example/services/T0/xoxbMARK0123456789ab", "xoxbMARK0123456789ab"),
        ("MY_API_BASE", "https://gate.example/v1/9f8a7b6c5d4e3f2a/openai", "9f8a7b6c5d4e3f2a"),
        ("SOME_SECRET", "MARK%2F0123456%2Bx", "MARK/0123456+x"),
        ("SOME_SECRET", base64.b64encode(b"MARK-0123456").decode(), "MARK-0123456"),
    ],
    ids=count(),  # pytest puts a test's name into a variable, and an address in it would be looked into
)
def test_variables_of_the_environment(monkeypatch, name, value, secret):
    assert redacted(f"It said {secret}.") == f"It said {secret}."
    monkeypatch.setenv(name, value)
    assert redacted(f"It said {secret}.") == "It said ***."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "evaporation"),
        ("SORT_KEY", "relevance"),
        ("DEFAULT_KEY", "question"),
        ("TOKEN_BUDGET", "100000000"),
        ("POSTGRES_PASSWORD", "password"),
        ("SSH_KEY_FILE", "/etc/ssl/key.pem"),
        ("SOME_KEY", "none"),
        ("KEYBOARD_LAYOUT", "evaporation cools"),
        ("CUSTOM_HEADERS", "X-Team: evaporation"),
        ("PASS_THROUGH", "evaporation cools"),
        ("PASSAGES", "evaporation-cools-7"),
        ("COMPASS", "evaporation-cools-7"),
        ("PATHS", "evaporation-cools-7"),
        ("MONKEY", "evaporation-cools-7"),
        ("PASSAGES_TOKEN", "evaporation"),
        ("MASTERKEY", "evaporation"),
        ("MYPAT", "12345678901"),
        ("DBPASS", "short"),
        ("MY_API_BASE", "https://gate.example/v1/openai/deployments/gpt-4o-mini-2024-07-18"),
        ("WEBHOOK", "https://hooks.example/evaporation-cools/relevance"),
        ("QUERY", "token=evaporation"),
    ],
    ids=count(),  # as above
)
def test_ordinary_values_do_not_turn_texts_into_stars(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert redacted(f"relevance {value} question") == f"relevance {value} question"


@pytest.mark.parametrize("key", ["none", "EMPTY", "lm-studio", "not-needed"])
def test_nor_do_placeholders_for_a_key(key):
    learn({"api_key": key})
    assert redacted(f"a {key} of it") == f"a {key} of it"


@pytest.mark.parametrize(
    "held",
    [
        {"extra_headers": {"Authorization": "Bearer MARK-0123456"}},
        {"headers": {"X-Corp": "MARK-0123456", "Accept": "application/json"}},
        {"extra_headers": {"Cookie": "theme=dark; session=MARK-0123456"}},
        {"headers": {"Authorization": "Basic " + base64.b64encode(b"me:MARK-0123456").decode()}},
        {"aws_session_token": "MARK-0123456"},
        {"azure_ad_token": b"MARK-0123456"},
        {"vertex_credentials": json.dumps({"private_key": "MARK-0123456"})},
        {"api_base": "https://me:MARK-0123456@host.example/v1"},
        {"api_base": "https://host.example/v1?api-key=MARK-0123456"},
        {"fallbacks": [{"model": "openai/x", "api_key": "MARK-0123456"}]},
        {"extra_body": {"auth": {"password": "MARK-0123456"}}},
        {"extra_body": json.dumps({"auth": {"password": "MARK-0123456"}})},
        {"api_base": "https://me:MARK-@0123456@host.example/v1?code=MARK-0123456"},
        {"api_key": "\ufeff'MARK-0123456'"},
        {"extra_headers": [("Authorization", "Bearer MARK-0123456"), ("Accept", "application/json")]},
        {"headers": [(b"x-corp", b"MARK-0123456")]},
        {"headers": ["X-Corp: MARK-0123456", "Accept: application/json"]},
        {"headers": httpx.Headers({"X-Corp": "MARK-0123456"})},
        {"cookies": {"session": "MARK-0123456", "theme": "dark"}},
        {"cookies": [("session", "MARK-0123456")]},
        {"cookies": httpx.Cookies({"session": "MARK-0123456"})},
        {"client": httpx.Client(cookies={"session": "MARK-0123456"})},
        {"client": httpx.Client(auth=("me", "MARK-0123456"))},
        {"client": httpx.Client(auth=httpx.DigestAuth("me", "MARK-0123456"))},
        {"client": httpx.Client(headers={"X-Corp": "MARK-0123456"})},
        {"client": httpx.AsyncClient(auth=("me", "MARK-0123456"))},
        {"http_client": httpx.Client(base_url="https://me:MARK-0123456@host.example")},
        {"auth": ("me", "MARK-0123456")},
        {"dsn": "host=db.example password=MARK-0123456 user=me"},
        {"conninfo": "host=db.example password='MARK-0123456'"},
        {"api_base": "https://host.example/v1/MARK-0123456/chat"},
        {"token": "root:MARK-0123456"},
    ],
    ids=count(),  # as above
)
def test_every_place_of_an_lms_settings_that_holds_a_secret(held):
    learn(held)
    assert "MARK-0123456" not in redacted("refused: MARK-0123456")
    assert redacted("application/json, dark, openai/x") == "application/json, dark, openai/x"


@pytest.mark.parametrize(
    "held",
    [
        {"extra_headers": {"X-Environment": "production", "X-Team": "chemistry"}},
        {"extra_headers": {"Cookie": "consent=production; theme=chemistry"}},
        {"api_base": "http://chemistry@host.example/v1"},
        {"api_base": "http://host.example/v1/chemistry/production-2024-07-18"},
        {"api_key": "chemistry"},
        {"headers": [("X-Environment", "production"), ("X-Team", "chemistry")]},
        {"cookies": {"consent": "production", "theme": "chemistry"}},
        {"stop": ["token=chemistry"], "sort_key": "production"},
    ],
    ids=count(),  # as above
)
def test_ordinary_words_of_an_lms_settings_stay(held):
    learn(held)
    assert redacted("the chemistry of mass production") == "the chemistry of mass production"


class StoreOfMyOwn:
    """Holds a client, as stores do, beside much that is no secret."""

    def __init__(self, client):
        self.held = {str(number): ("a passage", [0.5]) for number in range(20_000)}
        self.itself, self.client = self, client


class Remote:
    def __init__(self, **settings):
        self._settings = settings

    @property
    def dear(self):
        raise AssertionError("nothing is asked for that is not there")


class Slotted:
    __slots__ = ("password",)


def test_the_keys_of_a_stores_client():
    slotted = Slotted()
    slotted.password = b"MARK-4444444"
    for number, client in enumerate(
        [Remote(api_key="MARK-0000000"), Remote(options={"headers": {"x-token": "MARK-1111111"}}),
         Remote(dsn="postgresql://me:MARK-2222222@db/x"), Remote(info="host=db password=MARK-3333333"), slotted]
    ):  # fmt: skip
        learn({"store": StoreOfMyOwn(client)})
        assert redacted(f"refused {'MARK-' + str(number) * 7}") == "refused ***"
    assert redacted("a passage") == "a passage"


@pytest.mark.parametrize(
    "spelled", ["MARK%2f01234%2B56", "%4dARK/01234+56", "MARK%252F01234+56", "x=MARK/01234%2b56&y"]
)
def test_a_secret_that_is_quoted_in_part(spelled):
    learn({"api_key": "MARK/01234+56"})
    shown = redacted(f"GET https://host.example/?q={spelled} failed")
    assert "***" in shown
    assert "01234" not in shown
    assert shown.startswith("GET ")
    assert shown.endswith(" failed")
    assert (
        redacted("GET https://host.example/?q=100%25+sure failed") == "GET https://host.example/?q=100%25+sure failed"
    )


def test_a_uuid_in_capitals():
    learn({"api_key": "9f8a7b6c-1111-4222-8333-abcdef012345"})
    assert redacted("no key 9F8A7B6C-1111-4222-8333-ABCDEF012345") == "no key ***"


@pytest.mark.parametrize("write", ["\\u{:04x}", "&#{};", "&#x{:X};"])
def test_signs_that_are_escaped_one_and_all(write):
    learn({"api_key": "MARK-0123/45+6"})
    spelled = "".join(one if one.isalnum() else write.format(ord(one)) for one in "MARK-0123/45+6")
    assert redacted(f"it said {spelled} here") == "it said *** here"


def test_a_password_that_a_shell_was_given():
    learn({"password": "MARK$Az09!x"})
    assert redacted(r"ran: login --with MARK\$Az09\!x") == "ran: login --with ***"


def test_a_password_that_holds_an_at_sign():
    learn({"api_base": "https://me:corr3ct@h0rse-battery@host.example/v1"})
    assert redacted("no login with corr3ct@h0rse-battery") == "no login with ***"
    assert redacted("at https://me:other@p4ssword@host.example/v1") == "at https://***@host.example/v1"


class Own:
    """Settings below an attribute."""

    def __init__(self, **settings):
        self.__dict__.update(settings)


@pytest.mark.parametrize(
    "held",
    [
        {"client": Own(api_key="MARK-0123456")},
        {"_client": httpx.Client(headers={"X-Corp-Key": "MARK-0123456"})},
        {"session": httpx.Client(cookies={"sid": "MARK-0123456"})},
        {"access_token": "MARK-0123456"},
        {"auth": ("me", "MARK-0123456")},
        {"settings": Own(inner=Own(secret_key="MARK-0123456"))},
        {"judge": dspy.LM("openai/x", api_key="MARK-0123456")},
        {"backups": [dspy.LM("openai/x", api_key="MARK-0123456")]},
        {"endpoint": "https://host.example/v1/MARK-0123456/chat"},
    ],
    ids=count(),  # as above
)
def test_the_keys_of_an_lm_of_ones_own(held):
    class OwnLM(dspy.BaseLM):
        def forward(self, *_, **__):
            raise AssertionError("not asked")

    lm = OwnLM("own/model")
    lm.history = [{"token": "a passage of it"}]
    vars(lm).update(held)
    learn(lm)
    assert redacted("refused: MARK-0123456") == "refused: ***"
    assert redacted("a passage of it") == "a passage of it"


@pytest.mark.parametrize(
    ("library", "name", "value"),
    [
        ("litellm", "api_key", "MARK-0123456"),
        ("litellm", "anthropic_key", "MARK-0123456"),
        ("litellm", "headers", {"X-Gateway": "MARK-0123456"}),
        ("openai", "api_key", "MARK-0123456"),
    ],
)
def test_keys_that_are_set_for_a_whole_library(monkeypatch, library, name, value):
    monkeypatch.setattr(pytest.importorskip(library), name, value)
    learn(dspy.LM("openai/x"))
    assert redacted("refused: MARK-0123456") == "refused: ***"


@pytest.mark.parametrize("length", [12, 13, 20, 29])
def test_a_key_that_was_cut_off(length):
    key = "sk-proj7-Az09bY18cX27dW36eV45"
    learn({"api_key": key})
    assert redacted(f"the key {key[:length]}... is wrong") == "the key ***... is wrong"
    assert redacted(f"({'x' * 60}{key}"[: 61 + length]) == f"({'x' * 60}***"
    assert redacted("sk-proj7 and sk-proj7-Bz are others") == "sk-proj7 and sk-proj7-Bz are others"


@pytest.mark.parametrize("name", ["reranker-training-data-2024", "correct horse battery staple 7"])
def test_the_beginning_of_words_is_none(monkeypatch, name):
    monkeypatch.setenv("SOME_SECRET", name)
    assert redacted(f"a {name[:16]} of {name}") == f"a {name[:16]} of ***"
