"""The order of a migration, and nothing else: which node comes after which, what can be undone, where a person decides."""

from __future__ import annotations

from datetime import datetime

from migrate.facts import ApplianceFacts
from migrate.plan import Plan
from migrate.plan_file import LoadedPlan
from migrate.runbook import Node, NodeKind, Phase, Runbook, Undo

VERSION = 1
# Seconds on a slow (emulated) box; they scale with what the facts say, and the report compares them with what was measured.
BOOT, LOGIN, PACKAGE, READ, BACKUP, SWAP = 60.0, 3.0, 15.0, 10.0, 5.0, 3.0
ASKED = {"dns": "the name servers", "nat": "the gateway", "command": "your own command", "shared-ip": "the old box"}
SWUNG = "See that visitors are still sent to the new box"


def plan_migration(loaded: LoadedPlan, old: ApplianceFacts | None = None) -> Runbook:
    """The runbook of a plan. With facts of the old box the estimates fit it; the order is the same."""
    plan = loaded.plan
    backup = _backup_seconds(old)
    phases = (
        _inspect(plan),
        _prepare(plan, backup, old),
        _build(plan, backup),
        *_join(plan, backup),
        _verify(),
        _cutover(plan, backup),
        _watch(plan),
        _retire(plan),
    )
    return Runbook("migration", VERSION, plan.site.name, str(loaded.path), loaded.digest, phases)


def _step(
    name: str,
    title: str,
    *after: str,
    undo: Undo = Undo.NONE,
    estimate: float = LOGIN,
    outage: float = 0.0,
    may_skip: bool = False,
    undo_estimate: float = 0.0,
) -> Node:
    return Node(
        name, title, step=name, after=after, undo=undo, estimate=estimate, outage=outage, may_skip=may_skip, undo_estimate=undo_estimate
    )


def _inspect(plan: Plan) -> Phase:
    return Phase(
        "inspect",
        "Look at both boxes; nothing is changed",
        (
            _step("read-old", "Read the old box", estimate=READ),
            _step("read-new", "Reach the new box", estimate=1.0 if plan.new.provisioned else LOGIN),
            _step("read-hypervisor", "Reach the hypervisors", estimate=1.0),
            _step("read-cutover", f"Ask {ASKED[plan.cutover.method]} where visitors go, and whether we may change it"),
            _step("diagnose-certificate", "Judge the certificate and its key", "read-old"),
            _step("judge", "Judge everything found", "read-new", "read-hypervisor", "read-cutover", "diagnose-certificate", estimate=0.5),
            _step("preflight", "Stop here if anything blocks", "judge", estimate=0.1),
        ),
    )


def _prepare(plan: Plan, backup: float, old: ApplianceFacts | None) -> Phase:
    extras = len(old.content.recordings or ()) * 0.1 if old is not None else 5.0
    return Phase(
        "prepare",
        "Provision, back up, and lower the TTL; the service goes on" if plan.cutover.kept else "Provision and back up; the service goes on",
        (
            _step(
                "provision",
                "Make and boot the new box",
                undo=Undo.STEP,
                estimate=BOOT if plan.new.provisioned else 1.0,
                undo_estimate=LOGIN,
            ),
            _step("backup-old", "Back up the old site", estimate=backup),
            _step("safety-copy", "Keep an encrypted copy of certificate and key"),
            _step("archive-extras", "Fetch what backups do not hold", "backup-old", estimate=extras),
            *_if_kept(plan, _step("lower-ttl", "Lower the record's TTL", undo=Undo.STEP)),
        ),
    )


def _build(plan: Plan, backup: float) -> Phase:
    data: tuple[Node, ...]
    if plan.cutover.by_failover:
        data = (_step("restore-vault-key", "Restore the vault key", "install-packages"),)
    else:
        data = (
            _step("restore", "Restore the backup", "install-packages", estimate=2 * backup),
            _step("restore-vault-key", "Restore the vault key", "restore"),
            _step("carry-files", "Carry the files that backups leave out", "restore-vault-key"),
        )
    return Phase(
        "build",
        "Make the new box what the old one is",
        (
            _step("first-login", "Change the factory passwords", estimate=2 * LOGIN),
            _step("read-new-facts", "Read the new box", "first-login", estimate=READ),
            _step("service-address", "Give it its service address", "read-new-facts"),
            _step("transfer-certificate", "Move the certificate chain with its key", "read-new-facts", estimate=2 * LOGIN),
            _step("assign-certificate", "Serve it on the service address", "service-address", "transfer-certificate", estimate=2 * LOGIN),
            _step("install-packages", "Install the same software", "assign-certificate", estimate=5 * PACKAGE),
            *data,
        ),
    )


def _join(plan: Plan, backup: float) -> tuple[Phase, ...]:
    """Data by failover: from here until the retire phase the boxes are a pair. Without it, no phase."""
    if not plan.cutover.by_failover:
        return ()
    nodes = (
        _step("join-pair", "Establish the failover relationship", undo=Undo.STEP, estimate=4 * LOGIN, undo_estimate=2 * LOGIN),
        _step("first-sync", "Sync now, and wait for its end", "join-pair", estimate=2 * backup),
    )
    return (Phase("join", "Make the new box the backup of the old one; the service goes on", nodes),)


def _verify() -> Phase:
    return Phase(
        "verify",
        "Prove the new box before anybody is sent there",
        (
            _step("compare", "Compare what both boxes hold", estimate=READ),
            _step("served-chain", "Compare what both boxes serve", estimate=1.0),
            _step("health", "Ask the new box how it is", "compare"),
            _step("clients-can-connect", "Connect as a client would", estimate=1.0),
            _step("own-checks", "Your own checks", "compare", estimate=1.0, may_skip=True),
        ),
    )


def _cutover(plan: Plan, backup: float) -> Phase:
    data, last = _last_data(plan, backup)
    ttl, seconds = plan.cutover.kept, plan.cutover.seconds
    back = READ + LOGIN + ttl + seconds if plan.cutover.by_failover else _back_seconds(backup, ttl + seconds)
    old_ttl = _if_kept(plan, _step("wait-for-old-ttl", "Let the old TTL run out", _before_ttl(plan), estimate=ttl))
    return Phase(
        "cutover",
        "Switch the traffic" + ("" if plan.cutover.data != "none" else " (WHAT WAS WRITTEN SINCE THE BACKUP IS LOST)"),
        (
            Node("approve-cutover", "Approve the switch", kind=NodeKind.GATE, estimate=0.0),
            *_window(plan),
            *old_ttl,
            _step("blockers-live", "Look at every blocker again", "wait-for-old-ttl" if old_ttl else _before_ttl(plan), estimate=READ),
            *data,
            _step("switch", "Send visitors to the new box", last, undo=Undo.STEP, outage=seconds, undo_estimate=back),
            _step("prove", "Prove it from outside", "switch", estimate=5.0),
            _step("wait-for-swing", "Let the last visitor's answer run out" if ttl else SWUNG, "prove", estimate=ttl, outage=ttl),
        ),
    )


def _last_data(plan: Plan, backup: float) -> tuple[tuple[Node, ...], str]:
    """What moves the last data, and the node after which visitors may be sent to the new box."""
    if plan.cutover.by_failover:
        swap = _step(
            "become-primary",
            "Make the new box the primary, after a data sync",
            "blockers-live",
            undo=Undo.STEP,
            estimate=READ,
            outage=SWAP,
            undo_estimate=READ,
        )
        # The roles change only when the last record is over: that it is so is looked at while visitors are on their way.
        return (swap, _step("compare-last", "Compare to the last record", "become-primary", estimate=READ)), "become-primary"
    quiesce = _step("quiesce-old", "Stop the service address of the old box", "blockers-live", undo=Undo.STEP, outage=LOGIN)
    if plan.cutover.data == "none":
        return (quiesce,), "quiesce-old"
    resync = (
        _step("final-backup", "Take the last backup", "quiesce-old", estimate=backup, outage=backup),
        _step("final-restore", "Restore it", "final-backup", estimate=2 * backup, outage=2 * backup),
        _step("compare-last", "Compare to the last record", "final-restore", estimate=READ, outage=READ / 2),
    )
    return (quiesce, *resync), "compare-last"


def _if_kept(plan: Plan, node: Node) -> tuple[Node, ...]:
    """A node about answers that visitors keep; none where they keep nothing."""
    return (node,) if plan.cutover.kept else ()


def _back_seconds(backup: float, swing: float) -> float:
    """The new box stops serving, visitors are sent back, to the last of them; what is only on the new box is kept."""
    return 2 * LOGIN + READ + backup + swing


def _before_ttl(plan: Plan) -> str:
    return "cutover-window" if plan.cutover.not_before else "approve-cutover"


def _window(plan: Plan) -> tuple[Node, ...]:
    if plan.cutover.not_before is None:
        return ()
    opens = datetime.fromisoformat(plan.cutover.not_before)
    title = f"Wait until {opens:%Y-%m-%d %H:%M %Z}"
    return (Node("cutover-window", title, kind=NodeKind.WINDOW, until=opens.timestamp(), after=("approve-cutover",), estimate=0.0),)


def _watch(plan: Plan) -> Phase:
    carried: tuple[Node, ...] = ()
    if plan.cutover.by_failover:  # a backup takes no files, so what a data sync left out follows when it is the primary
        carried = (_step("carry-files", "Carry the files that the data sync left out", may_skip=True),)
    return Phase(
        "watch",
        "See that everybody comes back",
        (
            _step("clients-back", "Wait for the Jump Clients", estimate=30.0, may_skip=True),
            _step("inventory", "Write the inventory record", estimate=READ),
            Node(
                "soak",
                "Let the new box serve for a while",
                kind=NodeKind.SOAK,
                seconds=plan.watch.soak,
                after=("clients-back",),
                estimate=0.0,
            ),
            # Until then a way back is short: visitors ask again within the low TTL.
            *_if_kept(plan, _step("restore-ttl", "Give the record its TTL back", "soak")),
            *carried,
        ),
    )


def _retire(plan: Plan) -> Phase:
    parted: tuple[Node, ...] = ()
    last = "approve-retire"
    if plan.cutover.by_failover:  # a reset of one box of a pair must never reach the other one
        title = "Break the failover relationship"
        parted = (_step("end-pair", title, last, undo=Undo.STEP, estimate=LOGIN, undo_estimate=READ),)
        last = "end-pair"
    kept = "Keep the old box as the backup" if plan.cutover.by_failover else "Keep the old box untouched"
    return Phase(
        "retire",
        "Wipe the old box and switch it off",
        (
            Node("hold", kept, kind=NodeKind.SOAK, seconds=plan.retire.hold, estimate=0.0),
            Node("approve-retire", "Approve the end of the old box", kind=NodeKind.GATE, after=("hold",), estimate=0.0),
            *parted,
            _step("retire-gate", "Look at every condition of the gate", last, estimate=2 * READ),
            _step("factory-reset", "Reset the old box, and prove it", "retire-gate", undo=Undo.IMPOSSIBLE, estimate=30.0),
            _step("shut-down", "Shut it down", "factory-reset", undo=Undo.IMPOSSIBLE, estimate=10.0),
            _step("power-off", "Prove that it is off", "shut-down", estimate=10.0),
            _step("undefine", "Take it out of the hypervisor's list, keep its disk", "power-off", estimate=1.0),
            _step("return-papers", "Write the return papers", "power-off", estimate=0.5),
        ),
    )


def _backup_seconds(old: ApplianceFacts | None) -> float:
    return BACKUP if old is None else BACKUP + len(old.content.sessions or ()) / 2000.0
