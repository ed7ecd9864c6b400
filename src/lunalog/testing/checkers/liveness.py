"""L1 to L3: that things end, and in time."""

from __future__ import annotations

from lunalog.testing.history import PENDING, Finding, History

CAMPAIGN_FACTOR = 8.0
"""k of L1: a campaign on a stable core ends within so many times (lease + round trip).

Five leases of it are the time after which a leader that cannot open its segment gives up (N2): what
it had chosen before the core was stable may be of no use, and then the next leader begins afresh.
"""
CALL_GRACE_S = 1.0
"""What a call may take beyond its limit: its turn of the loop, and the telling."""
PENDING_S = 5.0
"""An append of a living client is over at the latest when its epoch is."""
GRAY_AFTER_S = 5.0
GRAY_FACTOR = 2.0
APPENDS_FOR_P99 = 200


def recovery_is_live(history: History) -> Finding:
    """L1: once the core is stable, somebody leads and acknowledges within k (lease + round trip)."""
    finding = Finding()
    for campaign in history.campaigns:
        took = campaign.ended - campaign.stable
        limit = CAMPAIGN_FACTOR * (campaign.lease_s + campaign.rtt_s)
        finding.require(
            took <= limit, "L1: {c} took {t:.3f} s, at most {m:.3f} s", c=campaign, t=took, m=limit
        )
    return finding


def nothing_waits_unbounded(history: History) -> Finding:
    """L2: every call of a living client has ended, or is within its limit."""
    finding = Finding()
    stable = min((c.stable for c in history.campaigns), default=float("inf"))
    for call in history.calls:
        if call.incarnation not in history.alive:
            continue
        limit = call.limit_s + CALL_GRACE_S
        if call.done is None:
            waits = history.over_at - call.invoked
            finding.require(waits <= limit, "L2: {c} still waits after {w:.3f} s", c=call, w=waits)
        elif call.invoked >= stable:
            took = call.done - call.invoked
            finding.require(took <= limit, "L2: {c} took {t:.3f} s", c=call, t=took)
        else:
            finding.checked += 1  # it ended; how long a fault may hold it is the fault's affair
    for append in history.appends:
        if append.incarnation in history.alive:
            waits = history.over_at - append.invoked
            finding.require(
                append.outcome != PENDING or waits <= PENDING_S,
                "L2: {a} still waits after {w:.3f} s",
                a=append,
                w=waits,
            )
    return finding


def gray_is_bounded(history: History) -> Finding:
    """L3: one gray server costs less than twice the p99, from five seconds on."""
    finding = Finding()
    for spell in history.gray_spells:
        before = p99(_latencies(history, 0.0, spell.first))
        during = p99(_latencies(history, spell.first + GRAY_AFTER_S, spell.end))
        if before is None or during is None:
            finding.violations.append(f"L3: too few appends to judge {spell}")
            continue
        finding.require(
            during < GRAY_FACTOR * before,
            "L3: p99 {d:.6f} s during {s}, {b:.6f} s before",
            d=during,
            s=spell,
            b=before,
        )
    return finding


def _latencies(history: History, first: float, end: float) -> list[float]:
    """How long appends took that were called within [first, end); one that was not acked: for ever."""
    return [
        append.done - append.invoked if append.sequence is not None else float("inf")
        for append in history.appends
        if first <= append.invoked < end
    ]


def p99(latencies: list[float]) -> float | None:
    """The 99th of a hundred; none: too few to say."""
    if len(latencies) < APPENDS_FOR_P99:
        return None
    return sorted(latencies)[(99 * len(latencies)) // 100]
