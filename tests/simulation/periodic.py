"""Runs with schedules and nothing else: leaders die in every way, and each tick is there once."""

from collections import Counter

from mqueue.schedule import SECOND_US, Spec, moment, next_after

from .faults import Faults
from .loop import elapse
from .world import START_US, World

EVERY_S = (1, 2, 3, 7)
# those that end a leader amid what it does
FAULTS = ("kill", "power_loss", "pause", "redis_forgets", "redis_is_away", "postgres_restarts", "postgres_is_away", "cut", "slow", "flaky")
PUT = b"""INSERT INTO schedule (namespace, name, topic, timezone, every_us, anchor_us, catch_up, payload, priority, next_at_us)
VALUES ('periodic', %(name)s, %(name)s, 'UTC', %(every)s, %(anchor)s, 'all', '0', 0, %(anchor)s + %(every)s)"""
QUIET_S = 3.0
LOST = 0.1  # of the calls


class Periodic(World):
    """Nobody fetches: what was enqueued is all there at the end."""

    async def _story(self) -> None:
        sql = self.postgres.own
        self.faults = Faults(self)
        keeping = self.loop.create_task(self._restart())
        await self._until_all_serve()
        for every in EVERY_S:
            sql.execute(PUT, {"name": f"every-{every}", "every": every * SECOND_US, "anchor": START_US})
        losing = self.loop.create_task(self._lose())
        await self.faults.run(self.loop.time() + 12.0)
        losing.cancel()
        await self._heal()
        for broker in self.brokers:
            broker.clock.offset_us = 0  # one whose clock is behind would be late
        await self._until_all_serve()
        until_us = self.wall_us()
        await elapse(QUIET_S)
        keeping.cancel()
        self._count_ticks(until_us)

    async def _lose(self) -> None:
        """Calls of PostgreSQL, and answers, all the while: of each leader some amid a tick."""
        while True:
            for broker in self.brokers:
                if broker.alive:
                    broker.to_postgres.flaky = LOST
            await elapse(0.2)

    def _count_ticks(self, until_us: int) -> None:
        sql = self.postgres.own
        expected: Counter[tuple[str, str]] = Counter()
        for name, every_us, next_us in sql.execute(b"SELECT name, every_us, next_at_us FROM schedule").fetchall():
            if next_us < until_us:
                self.fail(f"{name} is behind: {next_us} at {until_us}")
            spec, tick = Spec(every_us=every_us, anchor_us=START_US), START_US
            while (tick := next_after(spec, tick) or next_us) < next_us:
                expected[name, moment(tick).isoformat().replace("+00:00", "Z")] += 1
        found = Counter((m["schedule"], m["tick"]) for (m,) in sql.execute(b"SELECT metadata FROM message").fetchall())
        if found != expected:
            self.fail(f"twice: {[t for t in found if found[t] > 1]}, missing: {expected - found}, early: {found - expected}")
        [(enqueued, live)] = sql.execute(b"SELECT sum(enqueued)::bigint, (SELECT count(*) FROM message) FROM topic").fetchall()
        if enqueued != live:
            self.fail(f"{live} live, and the ledger says {enqueued}")
        self.count("ticks", len(found))
