"""Alerts out of the database: claimed from the outbox, delivered, confirmed.

Each is delivered at least once, whenever the dispatcher dies; what a receiver gets twice carries
the same key. A delivery that fails is claimed again when its lease is over.
"""

from __future__ import annotations

import hashlib
import json
import smtplib
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any, Protocol
from urllib.parse import urlsplit

import psycopg
from psycopg.rows import dict_row


class NotDelivered(Exception):
    """The receiver did not take it."""


class Receiver(Protocol):
    """Where alerts go."""

    def deliver(self, alerts: list[dict[str, Any]]) -> None:
        """Raises NotDelivered, and then none of them counts as delivered."""


def key(alert: dict[str, Any]) -> str:
    """The same for every delivery of one alert at one severity."""
    return f"{alert['alert_id']}:{alert['severity']}"


def body(alert: dict[str, Any]) -> dict[str, Any]:
    """An alert as receivers get it."""
    return {
        "key": key(alert),
        "alert_id": alert["alert_id"],
        "dedup_key": alert["dedup_key"],
        "kind": alert["kind"],
        "severity": alert["severity"],
        "symbol": alert["symbol"],
        "model": alert["model"],
        "message": alert["message"],
        "ts": alert["ts"].isoformat(),
        "occurrences": alert["occurrences"],
        "payload": alert["payload"],
    }


@dataclass(frozen=True)
class Webhook:
    """One POST of JSON for each batch; answered by a status below 300 it is delivered."""

    url: str
    token: str | None = None
    timeout: float = 10.0

    def deliver(self, alerts: list[dict[str, Any]]) -> None:
        """POST them."""
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise NotDelivered(f"{self.url} is no http or https address")
        items = [body(alert) for alert in alerts]
        batch = hashlib.sha256(",".join(i["key"] for i in items).encode()).hexdigest()
        headers = {"Content-Type": "application/json", "Idempotency-Key": batch}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(
            self.url, json.dumps({"alerts": items}).encode(), headers, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                if answer.status >= 300:
                    raise NotDelivered(f"the webhook answers {answer.status}")
        except OSError as error:
            raise NotDelivered(f"webhook: {error}") from None


@dataclass(frozen=True)
class Mail:
    """One message for each batch; its Message-ID is made of the alerts' keys."""

    host: str
    port: int
    to: tuple[str, ...]
    sender: str = "alphaplus@localhost"
    user: str | None = None
    password: str | None = None
    starttls: bool = False
    timeout: float = 20.0

    def deliver(self, alerts: list[dict[str, Any]]) -> None:
        """Send them."""
        message = EmailMessage()
        worst = max(alerts, key=lambda a: SEVERITIES.index(a["severity"]))
        more = f" and {len(alerts) - 1} more" if len(alerts) > 1 else ""
        subject = f"[AlphaPlus {worst['severity']}] {worst['message']}{more}"
        message["Subject"] = " ".join(subject.split())[:200]
        message["From"] = self.sender
        message["To"] = ", ".join(self.to)
        keys = ",".join(key(alert) for alert in alerts)
        digest = hashlib.sha256(keys.encode()).hexdigest()[:32]
        message["Message-ID"] = f"<{digest}@alphaplus>"
        message["X-AlphaPlus-Keys"] = keys[:900]
        message.set_content(
            "\n\n".join(
                f"{a['severity']} · {a['kind']} · {a['ts']:%Y-%m-%d %H:%M:%S %Z}\n{a['message']}\n"
                f"number {a['alert_id']}, key {key(a)}, {a['occurrences']} times"
                for a in alerts
            )
        )
        try:
            with smtplib.SMTP(self.host, self.port, timeout=self.timeout) as smtp:
                if self.starttls:
                    smtp.starttls()
                if self.user:
                    smtp.login(self.user, self.password or "")
                smtp.send_message(message)
        except (OSError, smtplib.SMTPException) as error:
            raise NotDelivered(f"mail: {error}") from None


SEVERITIES = ("info", "low", "medium", "high", "critical")


@dataclass
class Dispatcher:
    """One consumer of the outbox: wakes by NOTIFY, and every few seconds all the same."""

    conninfo: str
    consumer: str
    receivers: list[Receiver]
    channel: str | None = None
    lease: float = 60.0
    every: float = 5.0
    most: int = 100
    check: bool = True  # check the rules and predict at closes, too
    say: Callable[[str], None] = print
    delivered: int = 0
    stopped: bool = False

    def run(self, once: bool = False) -> None:
        """Until stopped. The database may go and come."""
        pause = 0.5
        while not self.stopped:
            try:
                with psycopg.connect(self.conninfo, autocommit=True, connect_timeout=10) as conn:
                    conn.execute("listen alphaplus_alerts")
                    pause = 0.5
                    while not self.stopped:
                        self._turn(conn)
                        if once:
                            return
                        for _ in conn.notifies(timeout=self.every, stop_after=1):
                            pass
            except psycopg.OperationalError as error:
                if once:
                    raise
                self.say(f"the database is away: {str(error).splitlines()[0]}")
                time.sleep(pause)
                pause = min(pause * 2, 30)

    def _turn(self, conn: psycopg.Connection[Any]) -> None:
        if self.check:
            for statement in ("call ml.record_live()", "select ops.check_alert_rules()"):
                try:
                    conn.execute(statement.encode())
                except psycopg.errors.DatabaseError as error:
                    if isinstance(error, psycopg.OperationalError):
                        raise
                    self.say(f"{statement}: {str(error).splitlines()[0]}")
        while self.deliver(conn) == self.most:
            pass

    def deliver(self, conn: psycopg.Connection[Any]) -> int:
        """What waits, as one batch; how many were claimed."""
        with conn.cursor(row_factory=dict_row) as cursor:
            alerts = cursor.execute(
                "select * from ops.claim_alerts_of(%s, %s, %s, make_interval(secs => %s))",
                (self.consumer, self.channel, self.most, self.lease),
            ).fetchall()
        if not alerts:
            return 0
        problem: str | None = None
        for receiver in self.receivers:
            try:
                receiver.deliver(alerts)
            except NotDelivered as error:
                problem = str(error)
                self.say(f"{len(alerts)} alerts wait: {problem}")
        for alert in alerts:
            conn.execute(
                "select ops.confirm_alert(%s, %s, %s)", (self.consumer, alert["alert_id"], problem)
            )
        if problem is None:
            self.delivered += len(alerts)
        return len(alerts)
