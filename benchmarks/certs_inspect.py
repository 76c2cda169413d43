"""How long inspecting takes, against ``openssl x509 -text`` called for each file, and 1,000 bundles in one process.

Run: ``python benchmarks/certs_inspect.py``. Prints medians and ratios; needs the program openssl.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(HERE), str(HERE / "tests" / "certs")]

from certs_making import HOST, issue  # noqa: E402 - after the path above

from certs.diagnose import diagnose  # noqa: E402
from certs.read import read_bundle  # noqa: E402
from certs.roots import Roots  # noqa: E402
from kit.process import run  # noqa: E402


def main() -> None:
    """Measure and print."""
    root = issue("Bench Root", ca=True)
    upper = issue("Bench Upper", root, ca=True)
    lower = issue("Bench Lower", upper, ca=True)
    leaf = issue(HOST, lower)
    files = {"leaf.pem": leaf.pem, "lower.pem": lower.pem, "upper.pem": upper.pem, "root.pem": root.pem, "key.pem": leaf.key_pem}
    roots = Roots([root.cert])

    def inspect() -> None:
        bundle = read_bundle(list(files.values()), roots=roots)
        findings = diagnose(bundle, hostname=HOST)
        if len(bundle.certs) != 3 or bundle.key is None or any(finding.blocks for finding in findings):
            raise SystemExit("what is measured does not work")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_bytes(content)

        def openssl() -> None:
            for file in files:
                words = ["pkey", "-text", "-noout"] if file == "key.pem" else ["x509", "-text", "-noout"]
                run(["openssl", *words, "-in", file], timeout=30, cwd=folder)

        def command() -> None:
            words = ["inspect", *files, "--roots", "root.pem", "--hostname", HOST]
            run([sys.executable, "-m", "certs", *words], timeout=60, cwd=folder, env={"PYTHONPATH": str(HERE)})

        theirs, ours, whole = median(openssl, 15), median(inspect, 60), median(command, 7)
    say(f"openssl, once for each of 5 files   {theirs * 1000:8.1f} ms")
    say(f"certs, all findings, in one process {ours * 1000:8.1f} ms   {theirs / ours:5.1f} times as fast as openssl")
    say(f"certs inspect as a command          {whole * 1000:8.1f} ms   {whole / theirs:5.1f} times openssl's time, mostly Python's start")
    thousand(lower, roots, [lower.pem, upper.pem, root.pem])


def thousand(issuer: object, roots: Roots, chain: list[bytes]) -> None:
    """A thousand different bundles: nothing that is remembered of one helps with the next but the chain."""
    made = [issue(f"box{number}.example.com", issuer) for number in range(1000)]  # type: ignore[arg-type]
    given = [[leaf.pem, *chain, leaf.key_pem] for leaf in made]
    began = time.perf_counter()
    for number, files in enumerate(given):
        findings = diagnose(read_bundle(files, roots=roots), hostname=f"box{number}.example.com")
        if any(finding.blocks for finding in findings):
            raise SystemExit("what is measured does not work")
    took = time.perf_counter() - began
    say(f"1,000 different bundles of 5 files  {took:8.2f} s    {took:5.2f} ms each")


def median(work: Callable[[], None], times: int) -> float:
    """Seconds, after one run that does not count."""
    work()
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def say(text: str) -> None:
    """One line of figures."""
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
