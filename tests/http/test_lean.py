"""requests and urllib3 are imported without modules that smai does not need. Each test runs a new interpreter."""

import subprocess
import sys

import pytest

LEFT_OUT = (
    "chardet",
    "charset_normalizer",
    "importlib.metadata",
    "traceback",
    "hmac",
    "shutil",
    "mimetypes",
    "zipfile",
    "idna",
)


def python(script: str, *options: str) -> str:
    """Run a script in an interpreter of its own; return what it prints."""
    done = subprocess.run(
        [sys.executable, *options, "-c", f"import sys, warnings\n{script}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_importing_the_http_library_does_not_load_unneeded_modules() -> None:
    """If this fails, requests or urllib3 now imports them in another way, and lean.py has no effect."""
    script = f"import smai_cli.http.exchange; print({set(LEFT_OUT)} & set(sys.modules))"
    assert python(script, "-W", "error") == "set()\n"


def test_the_omitted_modules_can_be_imported_later() -> None:
    script = """
import smai_cli.http.exchange
import charset_normalizer, importlib.metadata, requests, urllib3.http2
assert charset_normalizer.from_bytes(b"hi").best()
assert importlib.metadata.version("urllib3") == urllib3.http2.version("urllib3") == urllib3.__version__
answer = requests.Response()
answer._content = "Grüße".encode()
print(answer.text)
"""
    assert python(script, "-W", "error", "-X", "utf8") == "Grüße\n"


def test_libraries_use_the_omitted_modules_when_they_need_them() -> None:
    """Each line uses a function of one of these modules, through the library that imported it."""
    script = """
import smai_cli.http.exchange
import hashlib, logging, requests.models, requests.utils, tempfile, urllib3.fields, urllib3.util.ssl_, urllib3.util.url
urllib3.util.ssl_.assert_fingerprint(b"", hashlib.sha256(b"").hexdigest())
assert requests.models.PreparedRequest._get_idna_encoded_host("grüße.example") == "xn--gre-6ka8l.example"
assert urllib3.util.url.parse_url("http://grüße.example").host == "xn--gre-6ka8l.example"
assert requests.utils.extract_zipped_paths("/nowhere/ca.pem") == "/nowhere/ca.pem"
assert urllib3.fields.guess_content_type("a.png") == "image/png"
with tempfile.TemporaryDirectory():
    pass
try:
    1 / 0
except ZeroDivisionError:
    print(logging.Formatter().formatException(sys.exc_info()).splitlines()[-1])
import hmac, idna, mimetypes, shutil, traceback, zipfile
assert all(type(module) is type(sys) for module in (hmac, idna, mimetypes, shutil, traceback, zipfile))
import idna.core
assert idna.core.encode is idna.encode
"""
    assert python(script, "-W", "error", "-X", "utf8") == "ZeroDivisionError: division by zero\n"


def test_two_threads_can_use_an_omitted_module_at_once() -> None:
    script = """
import smai_cli.http.exchange
import requests.utils, threading
start, found = threading.Barrier(8), []
def use():
    start.wait()
    found.append(requests.utils.zipfile.ZipFile)
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(found), len(set(found)))
"""
    assert python(script) == "8 1\n"


def test_modules_that_are_already_loaded_remain_loaded() -> None:
    script = """
import charset_normalizer, importlib.metadata
metadata = importlib.metadata
import smai_cli.http.exchange
import requests.compat, urllib3.http2
assert requests.compat.chardet in (charset_normalizer, sys.modules.get("chardet"))
assert sys.modules["importlib.metadata"] is metadata
print(urllib3.http2.version is metadata.version)
"""
    assert python(script, "-W", "error") == "True\n"


def test_the_warning_filters_are_those_of_plain_requests() -> None:
    script = "; print(sorted(map(str, warnings.filters)))"
    assert python(f"import smai_cli.http.exchange{script}") == python(f"import requests{script}")


@pytest.mark.parametrize(
    ("message", "module", "is_shown"),
    [
        ("Unable to find acceptable character detection dependency (...).", "requests", False),
        ("Unable to find acceptable character detection dependency (...).", "another", True),
        ("urllib3 (9) doesn't match a supported version!", "requests", True),
    ],
)
def test_only_one_warning_of_requests_is_suppressed(message: str, module: str, is_shown: bool) -> None:
    script = f"""
import smai_cli.http.exchange
from smai_cli.http.lean import _without_charsets
with warnings.catch_warnings(record=True, action="always") as shown, _without_charsets():
    warnings.warn_explicit({message!r}, UserWarning, "file", 1, {module!r})
print(bool(shown))
"""
    assert python(script) == f"{is_shown}\n"
