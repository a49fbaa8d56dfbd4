"""These are the tasks of the pipeline. SMTP_PORT is where the mail server listens."""

import os
import smtplib
from datetime import timedelta
from email.message import EmailMessage

from mqueue import Bury, MQueue, Retry, current
from mqueue.client import Client

TOPIC = "mailing"
app = MQueue()
patient = Retry(max=5, base=0.3, cap=60)


@app.task(topic=TOPIC, priority=5)
def newsletter(issue: int, readers: list[str]) -> None:
    """It enqueues one job for each reader, which fails and is tried again alone. Run twice within a day, it enqueues
    each once, by the keys.
    """
    for reader in readers:
        send.options(idempotency_key=f"issue {issue} to {reader}").enqueue(reader, f"News, issue {issue}")


@app.task(topic=TOPIC, priority=5, retry=patient)
def send(to: str, subject: str) -> None:
    """What the server cannot do now is tried again; what it will never do is a dead letter at once."""
    _deliver(to, subject)


@app.task(topic=TOPIC, priority=0, retry=patient)
def send_code(to: str, code: int) -> None:
    """Somebody waits for the code, so it overtakes all newsletters that wait."""
    _deliver(to, f"Your code: {code:06d}")


@app.task(topic=TOPIC, every=timedelta(seconds=1))
def digest() -> None:
    """It tells the editor how much waits, and how much could not be delivered."""
    with Client(os.environ["MQUEUE_URL"], os.environ["MQUEUE_TOKEN"]) as client:
        [topic] = [topic for topic in client.topics() if topic.topic == TOPIC]
    _deliver("editor@example.org", f"Digest: {topic.ready + topic.delayed} wait, {topic.dead} dead")


def _deliver(to: str, subject: str) -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "shop@example.org", to, subject
    mail["Message-ID"] = f"<{current().id}@example.org>"  # the same at each attempt: it shows that a mail came twice
    mail.set_content("Hello!")
    try:
        with smtplib.SMTP("127.0.0.1", int(os.environ["SMTP_PORT"]), timeout=10) as server:
            server.send_message(mail)
    except smtplib.SMTPRecipientsRefused as error:
        [(code, reason)] = error.recipients.values()
        if code >= 500:
            raise Bury(f"{to}: {code} {reason.decode()}") from error
        raise
