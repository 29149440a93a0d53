"""What a peer must be able to do for the workloads."""

import asyncio
from abc import ABC, abstractmethod
from typing import TypeVar

from ..load import Connection, Receiver, Sender, dial
from .link import Link

Some = TypeVar("Some", bound=Link)
# Who writes to a group, what is written each time, and who gets it
Group = tuple[Link, bytes, list[Link]]


class Peer(ABC):
    """A protocol, and how accounts and groups are made in it; users are numbers."""

    port = 0
    settles = 0.0  # seconds until nobody in a group is told of joins any more

    async def prepare(self, users: range) -> None:
        """Make the accounts; most peers have one for all."""
        return

    @abstractmethod
    async def sender(self, user: int, to: int) -> Sender:
        """Connect somebody who writes to `to`."""

    @abstractmethod
    async def receiver(self, user: int) -> Receiver:
        """Connect somebody for whom messages are stored, also while away."""

    @abstractmethod
    async def idle(self, user: int) -> Connection:
        """Connect, with a password, and be ready to get messages."""

    @abstractmethod
    async def member(self, user: int) -> Link:
        """Connect somebody who gets what is written to the group."""

    @abstractmethod
    async def writer(self, user: int) -> tuple[Link, bytes]:
        """Connect somebody who writes to the group; gives what is written each time too."""

    async def group(self, sender: int, members: range) -> Group:
        """Connect people who all get what one of them writes."""
        writer, data = await self.writer(sender)
        writer.begin()
        made: list[Link] = []
        for user in members:
            member = await self.member(user)
            member.begin()
            made.append(member)
        await asyncio.sleep(self.settles)
        return writer, data, made

    async def leave(self, receiver: Receiver) -> None:
        """Disconnect, so that messages wait."""
        receiver.close()
        await asyncio.sleep(0.5)

    async def dial(self, made: Some) -> Some:
        """Open a connection."""
        return await dial(("127.0.0.1", self.port), lambda: made)
