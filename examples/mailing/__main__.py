"""The program sends a newsletter to 40 readers and to an address that does not exist, codes that overtake it, and
digests. The mail server is busy at times.
"""

# ruff: noqa: T201

import sys

from examples.mailing.smtp import Mailbox, Server
from examples.mailing.tasks import TOPIC, newsletter, send_code
from examples.stage import first_line, stage

READERS = 40
CODES = 3


def main() -> int:
    mailbox = Mailbox()
    with Server(mailbox) as server, stage("examples.mailing.tasks", concurrency=4, SMTP_PORT=str(server.port)) as scene:
        newsletter.enqueue(1, [*(f"reader{n}@example.org" for n in range(READERS)), "nobody@example.org"])
        for n in range(CODES):
            send_code.enqueue(f"customer{n}@example.org", 471100 + n)
        print(f"A newsletter for {READERS + 1} readers and {CODES} codes are enqueued; every third server is busy the first time.", flush=True)

        def subjects(start: str) -> int:
            return sum(str(mail["Subject"]).startswith(start) for mail in list(mailbox.accepted.values()))

        def delivered() -> bool:
            return (subjects("News"), subjects("Your code")) == (READERS, CODES) and subjects("Digest") > 0

        ended = scene.until(lambda: delivered() and bool(scene.client.dead_letters(TOPIC)), TOPIC)
        dead = scene.client.dead_letters(TOPIC)
    print(f"newsletters     {subjects('News'):>4}\ncodes           {subjects('Your code'):>4}\ndigests         {subjects('Digest'):>4}")
    print(f"busy, retried   {mailbox.busy:>4}\nsent twice      {mailbox.repeated:>4}\ndead letters    {len(dead):>4}")
    for letter in dead:
        print(f"  {first_line(letter)}")
    return 0 if ended and len(dead) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
