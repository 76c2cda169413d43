"""A report as a finished migration leaves it; tests change what they need."""

from __future__ import annotations

from kit.findings import Finding, Severity
from migrate.report.model import (
    Agreement,
    DecisionRow,
    EvidenceRow,
    FactRow,
    Fate,
    FigureRow,
    LeftOutRow,
    Measurements,
    NodeNature,
    NodeOutcome,
    NodeRow,
    OutageRow,
    PhaseRow,
    PlanRow,
    Report,
    ReturnLine,
    ReturnPapers,
    UndoRow,
    Verdict,
)

T0 = 1795376100.0


def node(name: str, title: str, start: float, took: float, sentence: str = "", **more: object) -> NodeRow:
    values: dict[str, object] = {
        "outcome": NodeOutcome.DONE,
        "attempt": 1,
        "started": T0 + start,
        "ended": T0 + start + took,
        "seconds": took,
        "estimate": max(1.0, round(took)),
        "sentence": sentence,
    }
    return NodeRow(name, title, **{**values, **more})  # type: ignore[arg-type]


def seen(what: str, value: str, source: str) -> EvidenceRow:
    return EvidenceRow(what, value, source)


def make_phases() -> tuple[PhaseRow, ...]:
    gate = {"nature": NodeNature.GATE, "estimate": None}
    return (
        PhaseRow(
            "inspect",
            "Look at both boxes; nothing is changed",
            (
                node("read-old", "Read the old box", 0, 4.2, "support.example.test runs 22.1.4 with 5,000 sessions."),
                node("read-new", "Reach the new box", 0, 0.2, "It does not exist yet: the run makes it."),
                node("read-cutover", "Ask the name servers", 0.1, 0.4, "Both name servers send visitors to the old box."),
                node("diagnose-certificate", "Judge the certificate and its key", 4.3, 0.6, "The chain is whole; the key fits."),
                node("preflight", "Judge everything found", 5, 0.1, "No blocker, 1 warning, 2 notes."),
            ),
        ),
        PhaseRow(
            "prepare",
            "Provision, back up, and lower the TTL; the service goes on",
            (
                node(
                    "provision",
                    "Make and boot the new box",
                    5.3,
                    48,
                    "boxshift-new answers at 127.0.1.12.",
                    evidence=(seen("machine", "uuid 5f0c…, 2 cores, 1,024 MiB", "libvirt qemu:///session"),),
                ),
                node(
                    "backup-old",
                    "Back up the old site",
                    5.3,
                    6.4,
                    "3.4 MB, read back.",
                    evidence=(
                        seen("backup", "sha256 9f86d081884c7d65…", "/login > Management > Software Management"),
                        seen("payload", "whole, opens with the password", "the file itself"),
                    ),
                ),
                node("safety-copy", "Keep an encrypted copy of certificate and key", 5.3, 2.1, "Certificate, chain and key, PKCS#12."),
                node("archive-extras", "Fetch what backups do not hold", 12, 21.0, "200 recordings and 12 files."),
                node("lower-ttl", "Lower the record's TTL", 5.3, 0.9, "From 300 s to 5 s on every server."),
            ),
        ),
        PhaseRow(
            "build",
            "Make the new box what the old one is",
            (
                node("first-login", "Change the factory passwords", 53.5, 3),
                node("transfer-certificate", "Move the certificate chain with its key", 57, 4),
                node("assign-certificate", "Serve it on the service address", 61.5, 2),
                node(
                    "install-packages",
                    "Install the same software",
                    64,
                    42,
                    "base-5.2.0, site-21.2.1, base-5.3.0, site-21.3.2, site-22.1.4.",
                ),
                node("restore", "Restore the backup", 106.2, 12, "Restored; the site's own accounts hold again."),
                node("carry-files", "Carry the files that backups leave out", 118.5, 5, attempt=2),
            ),
        ),
        PhaseRow(
            "verify",
            "Prove the new box before anybody is sent there",
            (
                node(
                    "compare", "Compare what both boxes hold", 124, 5, evidence=(seen("sessions", "old 5000, new 5000", "/api/reporting"),)
                ),
                node(
                    "served-chain",
                    "Compare what both boxes serve",
                    124,
                    0.4,
                    evidence=(seen("leaf", "e3b0c44298fc1c14…", "127.0.0.11:8443"), seen("leaf", "e3b0c44298fc1c14…", "127.0.0.12:8443")),
                ),
                node("own-checks", "Your own checks", 129.2, 0, outcome=NodeOutcome.SKIPPED, sentence="Skipped: none are given."),
            ),
        ),
        PhaseRow(
            "cutover",
            "Switch the traffic",
            (
                node("approve-cutover", "Approve the switch", 129.3, 30, **gate),
                node("wait-for-old-ttl", "Let the old TTL run out", 159.5, 0.2),
                node("quiesce-old", "Stop the service address of the old box", 160, 2),
                node("final-backup", "Take the last backup", 162, 3),
                node("final-restore", "Restore it", 165, 6.5),
                node("compare-last", "Compare to the last record", 171.6, 2),
                node("switch", "Send visitors to the new box", 173.7, 0.3, evidence=(seen("record", "new", "every authoritative server"),)),
                node("prove", "Prove it from outside", 174.1, 4.5, "5 good answers in a row through the name."),
            ),
        ),
        PhaseRow(
            "watch",
            "See that everybody comes back",
            (
                node("clients-back", "Wait for the Jump Clients", 179, 7, "25 of 25 are connected."),
                node("soak", "Let the new box serve for a while", 186, 3600, nature=NodeNature.SOAK, estimate=None),
                node("restore-ttl", "Give the record its TTL back", 179, 0.5),
            ),
        ),
        PhaseRow(
            "retire",
            "Wipe the old box and switch it off",
            (
                node("approve-retire", "Approve the end of the old box", 3786, 14, **gate),
                node("retire-gate", "Look at every condition of the gate", 3800, 9),
                node("factory-reset", "Reset the old box, and prove it", 3809.5, 22, "GUID, site, certificate and users are gone."),
                node("shut-down", "Shut it down", 3832, 6),
                node("power-off", "Prove that it is off", 3838, 1.5, evidence=(seen("power", "shut off", "libvirt"),)),
            ),
        ),
    )


def make_report(**changes: object) -> Report:
    values: dict[str, object] = {
        "site": "support.example.test",
        "run": "migration-20261122-1",
        "runbook": "migration",
        "verdict": Verdict.DONE,
        "headline": "The new box serves support.example.test; the old one is wiped and switched off.",
        "tool_version": "0.1.0",
        "made_at": T0 + 3842,
        "started": T0,
        "ended": T0 + 3840,
        "plan": (
            PlanRow("Old box", "127.0.1.11, service address 10.0.2.20"),
            PlanRow("New box", "provisioned on qemu:///session as boxshift-new"),
            PlanRow("Cutover", "dns, data: resync, TTL 5 s"),
            PlanRow("Backup password", "file:secrets.yaml#backup"),
        ),
        "phases": make_phases(),
        "findings": (
            Finding("files-left-out", Severity.NOTE, "12 files are not in backups.", "They are carried.", "old"),
            Finding("clock-uncertain", Severity.UNVERIFIED, "The clock could not be read to the second.", "Look at NTP.", "old"),
            Finding("certificate-expires", Severity.WARNING, "The certificate ends in 41 days.", "Order a new one.", "old"),
        ),
        "facts": (
            FactRow("Site software", "22.1.4 (build 95320)", "22.1.4 (build 95320)", Agreement.SAME),
            FactRow("Finished sessions", "5,213", "5,213", Agreement.SAME),
            FactRow("Session recordings", "200", "0", Agreement.DIFFERENT, "Backups do not hold recordings."),
            FactRow("Appliance GUID", "8d1b2a6e", "40c7f0aa", Agreement.EXPECTED),
            FactRow("Failover role", "none", None, Agreement.UNTOLD),
        ),
        "left_out": (
            LeftOutRow("Session recordings", Fate.ARCHIVED, 200, 41_300_000, "recordings/"),
            LeftOutRow("Files of 200 kB or more, or beyond 50", Fate.CARRIED, 12, 4_200_000),
            LeftOutRow("Settings under /appliance", Fate.BY_HAND, note="Syslog, SNMP and accepted addresses are listed in settings.txt."),
        ),
        "decisions": (
            DecisionRow("approve", "approve-cutover", "mara", T0 + 159, "Called the helpdesk first."),
            DecisionRow("approve", "approve-retire", "mara", T0 + 3800),
        ),
        "undo": (
            UndoRow("provision", "Make and boot the new box", "can be undone", seconds=5),
            UndoRow("lower-ttl", "Lower the record's TTL", "can be undone", seconds=1),
        ),
        "rollback_note": "Reset the old box, and prove it, has been started: there is no way back from it.",
        "measured": Measurements(
            seconds_total=3840.0,
            seconds_inside=184.0,
            seconds_waiting=3646.0,
            downtime_seconds=18.4,
            requests_sent=15_312,
            requests_lost=71,
            records_written=3_811,
            records_lost=0,
            served_chain_equal=True,
            outages=(OutageRow(T0 + 160.4, T0 + 178.8, 71),),
        ),
        "figures": (FigureRow("Added by boxshift", "4.1 %", "at most 5 %", met=True), FigureRow("Peak memory of the worker", "118 MB")),
        "papers": ReturnPapers(
            "old.example.test",
            "BX-1001-22",
            "8d1b2a6e-5f0c-4a86-9f2c-1d4b3c5e7a90",
            (
                ReturnLine("Factory reset", "read back at 20:33:12 UTC: no site, no users, another GUID", proved=True),
                ReturnLine("Powered off", "libvirt says: shut off", proved=True),
                ReturnLine("Attach the return label and call the carrier"),
            ),
        ),
    }
    return Report(**{**values, **changes})  # type: ignore[arg-type]
