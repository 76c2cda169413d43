"""Where a plan's runs live: a private folder beside the plan file."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from kit.errors import FailedError, UsageError
from kit.files import write_private
from migrate.plan import CommonPlan
from migrate.plan_file import LoadedPlan, parse_any_plan

FOLDER = ".boxshift"
FROZEN = "plan.yaml"


@dataclass(frozen=True)
class Workspace:
    """``root`` holds the database and one folder for each run; both mode 0700."""

    root: Path

    @staticmethod
    def beside(plan: Path) -> Workspace:
        """The workspace of a plan file; made if it is not there."""
        root = plan.resolve().parent / FOLDER
        try:
            root.mkdir(mode=0o700, exist_ok=True)
            (root / "runs").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise FailedError(f"The folder {root} cannot be made: {error.strerror}.", hint="Keep the plan where you may write.") from error
        return Workspace(root)

    @staticmethod
    def find(place: Path) -> Workspace:
        """The workspace at a plan file or folder, which must be there already."""
        folder = place if place.is_dir() else place.parent
        root = folder.resolve() / FOLDER
        if not root.is_dir():
            raise UsageError(f"There has been no run in {folder.resolve()}.", hint="Give the plan file: boxshift status PLAN")
        return Workspace(root)

    @property
    def database(self) -> str:
        """URL of the default database."""
        return f"sqlite:///{self.root / 'runs.sqlite'}"

    def run_folder(self, run: str) -> Path:
        """The run's own folder."""
        return self.root / "runs" / run

    def open_run(self, loaded: LoadedPlan[CommonPlan]) -> str:
        """A new run's folder with the plan frozen in it. Answers the run's name."""
        site = "".join(letter if letter.isalnum() else "-" for letter in loaded.plan.site.name.split(".")[0])
        run = f"{site}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        folder = self.run_folder(run)
        folder.mkdir(mode=0o700, parents=True)
        write_private(folder / FROZEN, loaded.path.read_bytes())
        return run

    def load_run(self, run: str, plan_path: Path) -> LoadedPlan[CommonPlan]:
        """The plan as it was when the run was submitted; relative paths still count from ``plan_path``."""
        raw = (self.run_folder(run) / FROZEN).read_bytes()
        return LoadedPlan(parse_any_plan(raw, f"of run {run}"), plan_path, "")


def keep_core_private() -> None:
    """No core dumps, and nothing we make is for others."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
