"""A Linux gateway without a machine: sshd and nftables in a network of our own lead visitors to one of two boxes on loopback addresses.

What is sent here never leaves the kernel, so the rule stands where this kernel's own connections pass: in the hook ``output``.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path

from images.apart import verify_apart
from kit.errors import UnreachableError
from kit.process import Child, need_program, run
from kit.waiting import wait_for
from migrate.demo.gateway import PUBLIC, make_key
from migrate.demo.stage import Gateway

SSH = "127.0.0.1"
SSHD = """\
Port 22
ListenAddress {listen}
HostKey {folder}/host_key
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
AuthorizedKeysFile {folder}/authorized_keys
MaxStartups 100
"""
# In a mount namespace: what this machine's own root has its shell do at a login, or its own locked account, is no part of a gateway.
HIDE = """\
mount --bind {folder}/shadow /etc/shadow; mount -t tmpfs none /run; mkdir /run/sshd
[ ! -e /root/.bashrc ] || mount --bind /dev/null /root/.bashrc
"""
SHADOW = "root:{digest}:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n"
RULES = """\
table ip nat {{
	chain output {{
		type nat hook output priority -100; policy accept;
		ip daddr {public} tcp dport {port} counter dnat to {box}
	}}
}}
"""


@dataclass
class LocalGateway:
    """Its keys and its configuration are in ``folder``; ``box`` and ``port``: where it leads visitors at first."""

    folder: Path
    box: str
    port: int
    _sshd: Child | None = field(default=None, init=False, repr=False)

    def start(self) -> Gateway:
        """Put it up, and wait until it lets somebody in.

        Raises:
            RefusedError: this is no network of our own (:func:`images.apart.enter`).
            UnexpectedError: a program is missing.

        """
        verify_apart()
        nft, ip = need_program("nft", package="nftables"), need_program("ip", package="iproute2")
        sshd = need_program("sshd", package="openssh-server")
        need_program("conntrack", package="conntrack")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        host_key = make_key(self.folder / "host_key")
        key = self.folder / "gateway_key"
        make_key(key)
        (self.folder / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
        (self.folder / "shadow").write_text(SHADOW.format(digest="*"))
        (self.folder / "sshd_config").write_text(SSHD.format(listen=SSH, folder=self.folder) + "PasswordAuthentication no\n")
        run(["sh", "-ec", HIDE.format(folder=self.folder)], timeout=30)
        run([ip, "address", "add", f"{PUBLIC}/32", "dev", "lo"], timeout=30)
        run([nft, "-f", "-"], timeout=30, stdin=RULES.format(public=PUBLIC, port=self.port, box=self.box).encode())
        self._sshd = Child([sshd, "-D", "-e", "-f", self.folder / "sshd_config"], log=self.folder / "sshd.log")
        wait_for(self._greets, what="the gateway's sshd", timeout=60, poll=0.05)
        return Gateway(SSH, host_key, key)

    def _greets(self) -> bool:
        said = self._sshd.said() if self._sshd is not None else ""
        try:
            with socket.create_connection((SSH, 22), 5) as wire:
                if wire.recv(9).startswith(b"SSH-2.0"):
                    return True
        except OSError as error:
            raise UnreachableError(f"sshd does not answer: {error}; {said}") from error
        raise UnreachableError(f"What answers is no sshd; {said}")

    def stop(self) -> None:
        """End sshd. The rule and the address go with the network."""
        if self._sshd is not None:
            self._sshd.stop()
            self._sshd = None
