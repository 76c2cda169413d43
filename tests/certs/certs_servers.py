"""Real servers on loopback that serve what a test gives them: nginx, openssl s_server, postfix, dovecot, slapd, PostgreSQL, prosody."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from certs_making import Issued

from kit.process import Child, find_program, run
from kit.waiting import wait_for

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Site:
    """One TLS listener of nginx: for which name, the certificates in the order served, the key. Several may share a port."""

    port: int
    certs: bytes
    key: bytes
    name: str = "_"


def chain_of(*issued: Issued) -> bytes:
    return b"".join(each.pem for each in issued)


@contextmanager
def daemon(argv: Sequence[str | Path], folder: Path, port: int, env: Mapping[str, str] | None = None) -> Iterator[Child]:
    """A server that is up: it accepts connections on ``port``."""
    with Child(argv, log=folder / "log", env=env, cwd=folder) as child:
        wait_for(
            lambda: is_open(port) or None,
            what=f"{Path(argv[0]).name} on port {port}",
            timeout=30,
            poll=0.1,
            give_up=lambda: child.said() if child.status is not None else None,
        )
        yield child


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


@contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that daemons reach after they have given up root."""
    folder = Path(tempfile.mkdtemp(prefix="boxshift-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def need(*programs: str, package: str, root: bool = False) -> list[Path]:
    found = [find_program(program) or Path(program) for program in programs]
    if not all(path.is_file() for path in found):
        pytest.skip(f"needs the Debian package {package}")
    if root and os.geteuid() != 0:
        pytest.skip("needs root: the server gives its rights up itself")
    return found


@contextmanager
def nginx(folder: Path, sites: Sequence[Site]) -> Iterator[Child]:
    (program,) = need("nginx", package="nginx-light")
    write_nginx(folder, sites)
    with daemon([program, "-e", folder / "error.log", "-p", folder, "-c", folder / "nginx.conf"], folder, sites[0].port) as child:
        yield child


def write_nginx(folder: Path, sites: Sequence[Site]) -> None:
    """Its configuration and the certificates; a running one takes them over at SIGHUP."""
    blocks = []
    for number, site in enumerate(sites):
        (folder / f"{number}.pem").write_bytes(site.certs)
        (folder / f"{number}.key").write_bytes(site.key)
        blocks.append(
            f"server {{ listen {LOOPBACK}:{site.port} ssl; server_name {site.name}; ssl_protocols TLSv1.2 TLSv1.3; "
            f"ssl_certificate {folder}/{number}.pem; ssl_certificate_key {folder}/{number}.key; return 200 ok; }}"
        )
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user} daemon off; worker_processes 1; pid {folder}/pid; events {{}} http {{ access_log off; {temporary} {' '.join(blocks)} }}\n"
    )


@contextmanager
def s_server(folder: Path, issued: Issued, *chain: Issued, more: Sequence[str] = ()) -> Iterator[int]:
    """OpenSSL's own server; gives its port."""
    (folder / "leaf.pem").write_bytes(issued.pem)
    (folder / "leaf.key").write_bytes(issued.key_pem)
    (folder / "chain.pem").write_bytes(chain_of(*chain))
    port = free_port()
    words = ["-accept", f"{LOOPBACK}:{port}", "-cert", "leaf.pem", "-key", "leaf.key", "-quiet"]
    words += ["-cert_chain", "chain.pem"] if chain else []
    with daemon(["openssl", "s_server", *words, *more], folder, port):
        yield port


def combined(folder: Path, *issued: Issued) -> Path:
    """Leaf, chain and bare key in one file, the key first: every server here takes that."""
    path = folder / "all.pem"
    path.write_bytes(issued[0].key_pem + chain_of(*issued))
    return path


@contextmanager
def postfix(*issued: Issued) -> Iterator[int]:
    (master,) = need("/usr/lib/postfix/sbin/master", package="postfix", root=True)
    with public_folder() as folder:
        port = free_port()
        for name in ("conf", "queue", "data"):
            (folder / name).mkdir()
        for name in ("pid", "private", "public", "incoming", "active", "deferred"):
            (folder / "queue" / name).mkdir()
        for name in ("data", "queue/private", "queue/public", "queue/incoming", "queue/active", "queue/deferred"):
            shutil.chown(folder / name, "postfix")
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": folder / "queue",
            "data_directory": folder / "data",
            "daemon_directory": master.parent,
            "inet_interfaces": LOOPBACK,
            "myhostname": "box.example.com",
            "mynetworks": "127.0.0.0/8",
            "maillog_file": folder / "mail.log",
            "maillog_file_prefixes": "/tmp",
            "smtpd_tls_chain_files": combined(folder, *issued),
            "smtpd_tls_security_level": "may",
            "alias_maps": "",
            "local_recipient_maps": "",
        }
        (folder / "conf/main.cf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        services = (
            f"{LOOPBACK}:{port} inet n - n - - smtpd",
            "postlog unix-dgram n - n - 1 postlogd",
            "anvil unix - - n - 1 anvil",
            "tlsmgr unix - - n 1000? 1 tlsmgr",
            "rewrite unix - - n - - trivial-rewrite",
        )
        (folder / "conf/master.cf").write_text("".join(f"{line}\n" for line in services))
        with daemon([master, "-c", folder / "conf", "-d"], folder, port):
            yield port


@contextmanager
def dovecot(*issued: Issued) -> Iterator[int]:
    (program,) = need("dovecot", package="dovecot-imapd", root=True)
    with public_folder() as folder:
        port, file = free_port(), combined(folder, *issued)
        (folder / "conf").write_text(
            f"protocols = imap\nbase_dir = {folder}/run\nstate_dir = {folder}/state\nlog_path = {folder}/mail.log\n"
            f"default_internal_user = root\ndefault_internal_group = root\ndefault_login_user = dovenull\n"
            f"ssl = yes\nssl_cert = <{file}\nssl_key = <{file}\n"
            f"service imap-login {{\n chroot =\n inet_listener imap {{\n address = {LOOPBACK}\n port = {port}\n }}\n"
            f" inet_listener imaps {{\n port = 0\n }}\n}}\nservice anvil {{\n chroot =\n}}\n"
            f"passdb {{\n driver = static\n}}\nuserdb {{\n driver = static\n args = uid=65534 gid=65534 home=/nonexistent\n}}\n"
        )
        with daemon([program, "-F", "-c", folder / "conf"], folder, port):
            yield port


@contextmanager
def slapd(folder: Path, *issued: Issued) -> Iterator[int]:
    (program,) = need("slapd", package="slapd")
    port, file = free_port(), combined(folder, *issued)
    (folder / "ldap").mkdir()
    (folder / "slapd.conf").write_text(
        f"include /etc/ldap/schema/core.schema\npidfile {folder}/slapd.pid\nTLSCertificateFile {file}\nTLSCertificateKeyFile {file}\n"
        f'modulepath /usr/lib/ldap\nmoduleload back_mdb\ndatabase mdb\nsuffix "dc=example"\ndirectory {folder}/ldap\n'
    )
    with daemon([program, "-h", f"ldap://{LOOPBACK}:{port}", "-f", folder / "slapd.conf", "-d", "0"], folder, port):
        yield port


@contextmanager
def postgres(*issued: Issued) -> Iterator[int]:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not versions:
        pytest.skip("needs the Debian package postgresql")
    programs, port = versions[-1], free_port()
    with public_folder() as folder:
        become: list[str] = []
        if os.geteuid() == 0:
            become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
            shutil.chown(folder, "postgres", "postgres")
        run([*become, programs / "initdb", "-D", folder / "data", "-A", "trust", "--no-sync"], timeout=60, cwd=folder)
        for name, content in (("server.crt", chain_of(*issued)), ("server.key", issued[0].key_pem)):
            path = folder / name
            path.write_bytes(content)
            path.chmod(0o600)
            if become:
                shutil.chown(path, "postgres", "postgres")
        options = {
            "ssl": "on",
            "ssl_cert_file": folder / "server.crt",
            "ssl_key_file": folder / "server.key",
            "unix_socket_directories": "",
            "listen_addresses": LOOPBACK,
            "fsync": "off",
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with daemon([*become, programs / "postgres", "-D", folder / "data", "-p", str(port), *words], folder, port):
            yield port


@contextmanager
def prosody(folder: Path, *issued: Issued) -> Iterator[int]:
    (program,) = need("prosody", package="prosody", root=True)
    port, file = free_port(), combined(folder, *issued)
    (folder / "xmpp").mkdir()
    (folder / "prosody.cfg.lua").write_text(
        f"daemonize = false\nrun_as_root = true\n"
        f'data_path = "{folder}/xmpp"\npidfile = "{folder}/xmpp/pid"\nmodules_enabled = {{ "tls"; "saslauth"; "c2s" }}\n'
        f'modules_disabled = {{ "s2s" }}\nc2s_ports = {{ {port} }}\nc2s_interfaces = {{ "{LOOPBACK}" }}\ns2s_ports = {{}}\n'
        f'log = {{ info = "{folder}/xmpp.log" }}\nVirtualHost "box.example.com"\n  ssl = {{ key = "{file}", certificate = "{file}" }}\n'
    )
    with daemon([program, "--config", folder / "prosody.cfg.lua"], folder, port):
        yield port
