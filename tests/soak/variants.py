"""Servers with a fault put in: what a long run must find. Each is a program for `Operated`."""

from textwrap import dedent

_RUN = "from pushd.cli import pushd\npushd(prog_name='pushd')\n"

VARIANTS = {
    # Every connection stays in memory when it is gone.
    "keeps_sessions": """
        from pushd.connection import Connection
        kept, lost = [], Connection.connection_lost
        def keep(self, exc):
            kept.append((self, self.session))
            lost(self, exc)
        Connection.connection_lost = keep
    """,
    # Every connection leaves a descriptor behind.
    "keeps_descriptors": """
        import os
        from pushd.connection import Connection
        lost = Connection.connection_lost
        def keep(self, exc):
            os.dup(2)
            lost(self, exc)
        Connection.connection_lost = keep
    """,
    # Every connection leaves a task behind.
    "keeps_tasks": """
        import asyncio
        from pushd.connection import Connection
        kept, lost = [], Connection.connection_lost
        def keep(self, exc):
            loop = asyncio.get_running_loop()
            kept.append(loop.create_task(asyncio.sleep(1e6)))
            lost(self, exc)
        Connection.connection_lost = keep
    """,
    # The write-ahead log never gives space back.
    "keeps_log": """
        import pushd.store as store
        opened = store.open_writer
        async def forever(folder, **settings):
            return await opened(folder, **{**settings, "log_bytes": 1 << 40})
        store.open_writer = forever
        store.tend_log = lambda db, folder, limit: 0
    """,
    # Each commit takes a little longer than the one before.
    "gets_slower": """
        import time
        from pushd.store.journal import Journal
        commit, count = Journal.commit, 0
        def slower(self, acks, batch):
            global count
            count += 1
            time.sleep(count / 5_000)
            return commit(self, acks, batch)
        Journal.commit = slower
    """,
    # One of 300 messages is confirmed, and queued for nobody.
    "loses_messages": """
        from pushd.store.journal import Journal
        enqueue, count = Journal.enqueue, 0
        def lose(self, queue, chat, message, rest):
            global count
            count += 1
            if count % 300:
                enqueue(self, queue, chat, message, rest)
        Journal.enqueue = lose
    """,
}


# What each must fail by.
MEANT = {
    "keeps_sessions": "memory",
    "keeps_descriptors": "descriptors",
    "keeps_tasks": "tasks",
    "keeps_log": "write-ahead log",
    "gets_slower": "p99",
    "loses_messages": "I1",
}


def program(name: str) -> str:
    """Give the program of a variant; "" gives the server as it is."""
    return dedent(VARIANTS[name]) + _RUN if name else ""
