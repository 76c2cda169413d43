"""How long `boxshift --help` takes against a two-command typer program, in turn, in one run. Target: ratio at most 1.3.

python benchmarks/help_start.py [RUNS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEER = """\
import typer
app = typer.Typer()

@app.command()
def one(name: str, loud: bool = False) -> None:
    "First."

@app.command()
def two(count: int = 1) -> None:
    "Second."

app()
"""


def seconds(argv: list[str]) -> float:
    """Wall time of one whole process."""
    begin = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    """Measure and print."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory() as folder:
        peer = Path(folder) / "peer.py"
        peer.write_text(PEER)
        ours = [str(Path(sys.executable).with_name("boxshift")), "--help"]
        theirs = [sys.executable, str(peer), "--help"]
        seconds(ours), seconds(theirs)
        pairs = [(seconds(ours), seconds(theirs)) for _ in range(runs)]
    ratios = [one / other for one, other in pairs]
    print(f"boxshift --help       median {statistics.median(one for one, _ in pairs) * 1000:7.1f} ms")
    print(f"two-command typer     median {statistics.median(other for _, other in pairs) * 1000:7.1f} ms")
    print(f"ratio                 median {statistics.median(ratios):.2f}  (min {min(ratios):.2f}, max {max(ratios):.2f}; target <= 1.3)")


if __name__ == "__main__":
    main()
