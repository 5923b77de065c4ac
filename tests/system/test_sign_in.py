"""Sign-in at the installed service: with a real browser, a provider, attackers, and a search for leaked secrets."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from tests.identity_provider import CANARY, CLIENT_ID, CLIENT_SECRET, DOMAIN, FORGERIES
from tests.system.conftest import CONFIGURATION
from tests.system.faults import DAEMON, await_healthy, await_that, kill, main_pid
from tests.system.service import URL, Service, run

ROOT = Path(__file__).parents[2]
SECRET_FILE = Path("/etc/draupnir/oidc_client_secret")
KEY_FILE = Path("/etc/draupnir/refresh_token_key")
ISSUER_PORT = 9123
ISSUER = f"http://127.0.0.1:{ISSUER_PORT}"
BOSS = "boss@example.com"
CONFIGURED = f"""
[oidc]
discovery_url = "{ISSUER}/.well-known/openid-configuration"
client_id = "{CLIENT_ID}"
redirect_url = "{URL}/oauth_callback"
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[subprocess.Popen[bytes]]:
    """Provide an identity provider on loopback."""
    command = [sys.executable, str(ROOT / "tests/identity_provider.py"), str(ISSUER_PORT), f"{URL}/oauth_callback"]
    process = subprocess.Popen(command, cwd="/")
    try:
        await_that(lambda: _answers(f"{ISSUER}/jwks"), "the provider answers")
        yield process
    finally:
        process.terminate()
        process.wait(timeout=300)


@pytest.fixture(scope="module", autouse=True)
def _configured(service: Service, provider: subprocess.Popen[bytes]) -> Iterator[None]:
    """Provide the service with sign-in; restore it afterwards, and delete all users."""
    before = CONFIGURATION.read_text()
    people = f'trusted_user_email_domain = "{DOMAIN}"\nadmins = ["{BOSS}"]\n'
    CONFIGURATION.write_text(people + before + CONFIGURED)
    SECRET_FILE.touch(mode=0o600)
    SECRET_FILE.write_text(CLIENT_SECRET + "\n")
    run("systemctl", "restart", DAEMON)
    await_healthy(service)
    yield
    CONFIGURATION.write_text(before)
    SECRET_FILE.unlink()
    sql("TRUNCATE users, tokens, sign_ins")
    run("systemctl", "restart", DAEMON)
    await_healthy(service)


@pytest.fixture(autouse=True)
def _honest() -> Iterator[None]:
    order()
    yield
    order()


def order(**orders: object) -> None:
    with suppress(httpx.ConnectError):
        httpx.post(f"{ISSUER}/orders", json=orders)


def _answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(url).status_code == 200
    return False


def sql(statement: str) -> str:
    command = ("psql", "-XAtq", "-h", "/run/draupnir-metadata", "-d", "draupnir", "-c", statement)
    return run("runuser", "-u", "draupnir", "--", *command, cwd="/").stdout


@dataclass
class Client:
    """A client program with a separate address."""

    address: str = "127.0.0.1"
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    token: str = ""

    def ask(self, method: str, path: str, attributes: dict[str, Any] | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        body = None if attributes is None else {"data": {"attributes": attributes}}
        with httpx.Client(base_url=URL, transport=httpx.HTTPTransport(local_address=self.address)) as http:
            return http.request(method, path, json=body, headers=headers)

    def begin(self, port: int | None) -> str:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        answer = self.ask("POST", "/sign_ins", {"code_challenge": challenge, "loopback_port": port})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["data"]["attributes"]["url"])

    def redeem(self, code: str) -> httpx.Response:
        return self.ask("POST", "/sessions", {"code": code, "code_verifier": self.verifier})

    def sign_in(self, code: str) -> dict[str, Any]:
        answer = self.redeem(code)
        assert answer.status_code == 201, answer.text
        attributes: dict[str, Any] = answer.json()["data"]["attributes"]
        self.token = attributes["token"]
        return attributes


@dataclass
class Listener:
    """The listener of a client for the browser's redirect."""

    port: int
    queries: list[dict[str, str]]


@contextmanager
def listening() -> Iterator[Listener]:
    queries: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if urlsplit(self.path).path == "/":
                queries.append(dict(parse_qsl(urlsplit(self.path).query)))
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>Back</title>You may close this page.")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Listener(server.server_address[1], queries)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Any]:
    """Provide a real browser with a new profile."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service as Driver

    profile = str(tmp_path / "profile")
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(service=Driver("/usr/bin/chromedriver"), options=options)
    yield driver
    driver.quit()
    # A hanging browser outlives its driver, and keeps a port.
    run("pkill", "-KILL", "-f", profile, ok=False)
    await_that(lambda: not run("pgrep", "-f", profile, ok=False).stdout, "the browser is gone")


def say_who(driver: Any, email: str) -> None:
    from selenium.webdriver.common.by import By

    driver.find_element(By.ID, "email").send_keys(email)
    driver.find_element(By.ID, "sign-in").click()


def await_page(driver: Any, title: str) -> None:
    """Wait until the browser shows the text, because a click does not wait for the new page."""
    await_that(lambda: driver.title == title, f"the page {title!r} is there")


class Script:
    """A scripted browser: cookies, and single redirects."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.address = address
        self.cookies = httpx.Cookies()

    def ask(self, method: str, url: str, form: dict[str, str] | None = None) -> httpx.Response:
        transport = httpx.HTTPTransport(local_address=self.address)
        with httpx.Client(transport=transport, cookies=self.cookies, timeout=300) as http:
            answer = http.request(method, url, data=form)
            self.cookies = http.cookies
            return answer

    def get(self, url: str) -> httpx.Response:
        return self.ask("GET", url)

    def sign_in(self, url: str, email: str = "jane@example.com") -> httpx.Response:
        return self.get(self.way_back(url, email))

    def way_back(self, url: str, email: str = "jane@example.com") -> str:
        answer = self.get(url)
        assert answer.status_code == 302, answer.text
        form = dict(parse_qsl(urlsplit(answer.headers["location"]).query)) | {"email": email}
        answer = self.ask("POST", f"{ISSUER}/authorize", form)
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]


def pasted(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(re.findall(r"<code>([\w-]+)</code>", answer.text)[0])


def test_a_browser_signs_in_and_comes_back_to_the_client(chromium: Any) -> None:
    client = Client()
    with listening() as listener:
        chromium.get(client.begin(listener.port))
        assert urlsplit(chromium.current_url).port == ISSUER_PORT
        say_who(chromium, "jane@example.com")
        await_that(lambda: listener.queries, "the browser is back at the client")
        await_page(chromium, "Back")
        (query,) = listener.queries
    assert query.keys() == {"code"}
    told = client.sign_in(query["code"])
    assert (told["email"], told["role"]) == ("jane@example.com", "user")
    assert client.ask("GET", "/images").status_code == 200
    assert client.ask("POST", "/images", {}).status_code == 403
    assert client.ask("DELETE", "/sessions/current").status_code == 204
    assert client.ask("GET", "/images").status_code == 401


def test_a_browser_elsewhere_shows_a_code_to_be_pasted(chromium: Any) -> None:
    from selenium.webdriver.common.by import By

    client = Client()
    chromium.get(client.begin(None))
    say_who(chromium, BOSS)
    await_page(chromium, "Draupnir: Almost there")
    # The page's own policy allows its style.
    assert chromium.find_element(By.TAG_NAME, "code").value_of_css_property("display") == "block"
    assert [entry for entry in chromium.get_log("browser") if "Security Policy" in entry["message"]] == []
    told = client.sign_in(chromium.find_element(By.TAG_NAME, "code").text)
    assert (told["email"], told["role"]) == (BOSS, "admin")
    assert client.ask("GET", "/instances?all=true").status_code == 200
    chromium.get(f"{URL}/oauth_callback?state=x&code=y&error=<script>document.title='mark'</script>")
    await_page(chromium, "Draupnir: This sign-in cannot continue")


def test_a_forged_id_token_is_refused() -> None:
    before = sql("SELECT count(*) FROM tokens")
    newest = int(sql("SELECT coalesce(max(id), 0) FROM sign_ins"))
    for number, forgery in enumerate(FORGERIES):
        order(forge=forgery)
        address = f"127.2.0.{number + 1}"
        answer = Script(address).sign_in(Client(address).begin(None))
        assert answer.status_code == 401, forgery
        assert "You were not signed in" in answer.text, forgery
    assert sql("SELECT count(*) FROM tokens") == before
    assert sql(f"SELECT count(*) FROM sign_ins WHERE id > {newest}") == "0\n"


def test_attackers_get_nothing_from_sign_ins_of_others() -> None:
    attacker, victim = Script("127.3.0.1"), Script("127.3.0.2")
    client = Client("127.3.0.1")
    url = client.begin(None)
    back = attacker.way_back(url)
    # The attacker's state in the victim's browser; the link again; the answer again.
    assert victim.get(back).status_code == 404
    assert victim.get(url).status_code == 404
    code = pasted(attacker.get(back))
    assert attacker.get(back).status_code == 404
    assert Client("127.3.0.2").redeem(code).status_code == 401
    assert client.redeem(code).status_code == 401


def test_two_hundred_concurrent_sign_ins_leave_the_service_healthy(service: Service) -> None:
    answers: list[int] = []

    def begin(number: int) -> None:
        answers.append(
            Client(f"127.4.0.{number + 1}").ask("POST", "/sign_ins", {"code_challenge": "A" * 43}).status_code
        )

    pid = main_pid(DAEMON)
    threads = [threading.Thread(target=begin, args=[number]) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [201] * 200
    assert (main_pid(DAEMON), service.ask("GET", "/health_check").status_code) == (pid, 200)
    client = Client()
    client.sign_in(pasted(Script().sign_in(client.begin(None))))


def test_no_secret_is_found_anywhere(service: Service) -> None:
    client = Client("127.5.0.1")
    client.sign_in(pasted(Script("127.5.0.1").sign_in(client.begin(None))))
    named = client.ask("POST", "/tokens", {"name": "ci"}).json()["data"]["attributes"]["token"]
    # Failures are logged, too.
    order(fail=500)
    Script("127.5.0.1").sign_in(Client("127.5.0.1").begin(None))
    Client("127.5.0.1", token=named[:-1]).ask("GET", "/images")
    httpx.get(f"{URL}/tokens?token={named}", headers={"Authorization": f"Bearer {named}"})
    canaries = [CANARY, CLIENT_SECRET, client.token, named]
    key = KEY_FILE.read_bytes()
    places = {
        "journal": run("journalctl", "--namespace=*", "--no-pager", "-o", "json").stdout,
        "audit": run("journalctl", "--no-pager", "-t", "draupnir-audit", "-o", "verbose").stdout,
        "dump": run(
            "runuser", "-u", "draupnir", "--", "pg_dump", "-h", "/run/draupnir-metadata", "draupnir", cwd="/"
        ).stdout,
    }
    assert "jane@example.com" in places["audit"]
    assert "jane@example.com" in places["dump"]
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("environ", "cmdline"):
            with suppress(OSError):
                places[f"{process}/{name}"] = (process / name).read_bytes().decode("latin-1")
    for place, text in places.items():
        for canary in [*canaries, key.hex(), base64.b64encode(key).decode()]:
            assert canary not in text, (place, canary)


def test_a_daemon_that_crashes_leaves_no_core(service: Service) -> None:
    client = Client("127.6.0.1")
    client.sign_in(pasted(Script("127.6.0.1").sign_in(client.begin(None))))
    limits = Path(f"/proc/{main_pid(DAEMON)}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
    started_s = time.time()
    kill(DAEMON, signal.SIGABRT)
    await_healthy(service)
    places = ("/", "/var/lib/draupnir", "/var/lib/systemd/coredump", "/var/crash", "/tmp", "/run")
    found = [path for place in places for path in Path(place).glob("*core*") if path.is_file()]
    assert [path for path in found if path.stat().st_mtime >= started_s] == []
    # Existing sessions stay valid.
    assert client.ask("GET", "/images").status_code == 200


def test_the_key_and_the_secret_are_for_root_and_the_daemon_gets_them_from_systemd() -> None:
    for path in (KEY_FILE, SECRET_FILE):
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (0, 0o600)
        assert run("runuser", "-u", "draupnir", "--", "cat", path, ok=False, cwd="/").returncode != 0
    environment = Path(f"/proc/{main_pid(DAEMON)}/environ").read_text()
    assert "CREDENTIALS_DIRECTORY=/run/credentials/draupnir.service" in environment


@pytest.mark.parametrize(("path", "part"), [(KEY_FILE, "encryption key"), (SECRET_FILE, "sign-in")])
def test_without_key_or_secret_the_service_gives_advice(service: Service, path: Path, part: str) -> None:
    kept = path.read_bytes()
    path.unlink()
    since = f"@{time.time():.6f}"
    try:
        assert run("systemctl", "restart", DAEMON, ok=False).returncode != 0
        assert run("systemctl", "show", "--value", "-p", "ExecMainStatus", DAEMON).stdout == "78\n"
        said = f"{path} is missing or empty"
        await_that(lambda: said in run("journalctl", "-u", DAEMON, "-o", "cat", "--since", since).stdout, said)
        doctor = run("draupnir", "doctor", ok=False)
        assert doctor.returncode == 1
        assert f"✗ {part}: " in doctor.stdout
        assert str(path) in doctor.stdout
    finally:
        path.touch(mode=0o600)
        path.write_bytes(kept)
        run("systemctl", "reset-failed", DAEMON)
        run("systemctl", "restart", DAEMON)
        await_healthy(service)


def test_doctor_reports_the_provider() -> None:
    findings = json.loads(run("draupnir", "doctor", "--output", "json", ok=False).stdout)["findings"]
    (finding,) = [each for each in findings if each["part"] == "sign-in"]
    assert finding["verdict"] == "ok"
    assert ISSUER in finding["text"]


def test_a_provider_outage_is_reported_and_closes_nothing(service: Service, provider: subprocess.Popen[bytes]) -> None:
    signed_in = Client("127.7.0.1")
    signed_in.sign_in(pasted(Script("127.7.0.1").sign_in(signed_in.begin(None))))
    run("systemctl", "restart", DAEMON)
    await_healthy(service)
    provider.send_signal(signal.SIGSTOP)
    try:
        answer = httpx.get(Client("127.7.0.1").begin(None), timeout=300)
        assert answer.status_code == 503
        assert "Your identity provider does not answer" in answer.text
        assert service.ask("GET", "/health_check").status_code == 200
        assert signed_in.ask("GET", "/images").status_code == 200
        doctor = run("draupnir", "doctor", ok=False).stdout
        assert "✗ sign-in: the identity provider at" in doctor
    finally:
        provider.send_signal(signal.SIGCONT)
    client = Client("127.7.0.1")
    client.sign_in(pasted(Script("127.7.0.1").sign_in(client.begin(None))))
