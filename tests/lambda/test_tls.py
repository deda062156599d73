"""TLS as it is in a company's network: a root that only SSL_CERT_FILE knows. Secrets Manager and S3 answer over it."""

import json
import os
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from programs import HANGS_SECONDS, ROOT

SECRET = {"okki_client_id": "a", "okki_client_secret": "b", "qeasy_app_key": "c", "qeasy_app_secret": "d"}
PIPELINE = '[target]\nkind = "qeasy"\nscheme_id = "s"\n'


class Aws(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b""):
        self.server.seen.append(self.command)
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(404)

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.answer(200, json.dumps({"Name": "secret", "SecretString": json.dumps(SECRET)}).encode())

    def log_message(self, *_):
        pass


def openssl(directory, *arguments):
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl(directory, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=a company's root",
            "-days", "2", "-addext", "basicConstraints=critical,CA:TRUE")
    openssl(directory, "req", *key, "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=localhost")
    (directory / "ext").write_text("subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
    openssl(directory, "x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", "leaf.pem", "-days", "2", "-extfile", "ext")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "leaf.pem", directory / "leaf.key")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Aws)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.seen, server.ca = [], directory / "ca.pem"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def check(aws, directory, **more):
    (directory / "pipeline.toml").write_text(PIPELINE)
    aws.seen.clear()
    env = {name: value for name, value in os.environ.items() if not name.startswith("SSL_CERT_")} | {
        "AWS_ENDPOINT_URL": f"https://localhost:{aws.server_port}", "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "ap-east-1", "OKKI_SYNC_SECRET": "secret",
        "OKKI_SYNC_STORE": "s3://bucket/prefix", "HTTPS_PROXY": "http://127.0.0.1:1",
    } | more
    done = subprocess.run([ROOT / "target/debug/okki-sync", "check"], cwd=directory, env=env, capture_output=True,
                          text=True, timeout=HANGS_SECONDS)
    return done.returncode, done.stdout + done.stderr


def test_a_root_from_ssl_cert_file_is_trusted_and_loopback_takes_no_proxy(aws, tmp_path):
    code, told = check(aws, tmp_path, SSL_CERT_FILE=str(aws.ca))
    assert code == 0, told
    assert sorted(aws.seen) == ["GET", "POST"]


def test_a_root_that_nobody_knows_is_refused_and_the_error_says_so(aws, tmp_path):
    code, told = check(aws, tmp_path)
    assert code == 2, told
    assert "UnknownIssuer" in told
    assert aws.seen == []
