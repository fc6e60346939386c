"""The process: a port, signals, and an end that loses no accepted request."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from embedtune.errors import ConfigError
from embedtune.files import visible
from embedtune.serving.connection import connection_class
from embedtune.serving.gate import Gate
from embedtune.serving.models import Catalogue
from embedtune.serving.settings import ServerSettings

logger = logging.getLogger(__name__)

BACKLOG = 1024
LAST_SECONDS = 3  # for sending what is written


def open_port(host: str, port: int) -> socket.socket:
    """The port, taken; nothing is accepted yet. 0 takes a free one.

    Raises:
        ConfigError: It is taken, not allowed, or there is no such address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(
            f"cannot listen on {visible(host)} port {port}: {visible(error)}; give another "
            "--host or --port"
        ) from error
    return opened


class Server(uvicorn.Server):
    """uvicorn, with our way to stop: refuse new requests, answer the accepted ones, then close."""

    def __init__(
        self,
        gate: Gate,
        catalogue: Catalogue,
        settings: ServerSettings,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        config = uvicorn.Config(
            gate,
            http=connection_class(settings),
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,  # it would show what clients write into addresses
            server_header=False,
            timeout_keep_alive=int(settings.idle_seconds) or 1,
            timeout_graceful_shutdown=LAST_SECONDS,
            backlog=BACKLOG,
        )
        super().__init__(config)
        self._gate = gate
        self._catalogue = catalogue
        self._settings = settings
        self._on_start = on_start

    def stop(self) -> None:
        """Begin to stop; a second time, at once."""
        self.force_exit = self._gate.stopping
        self._gate.stopping = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gate.stopping = True
        loop = asyncio.get_running_loop()
        begin = loop.time()
        while not self.force_exit and loop.time() < begin + self._settings.stop_seconds:
            if not self._is_busy() and loop.time() >= begin + self._settings.grace_seconds:
                break
            await asyncio.sleep(0.02)
        self._catalogue.close(finish=False)
        await super().shutdown(sockets=sockets)

    def _is_busy(self) -> bool:
        """Requests without a whole answer, or answers that are not all sent."""
        return self._gate.in_flight > 0 or any(
            connection.transport.get_write_buffer_size()
            for connection in self.server_state.connections
            if connection.transport is not None
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT stop, SIGHUP loads all models anew; outside of the main thread
        signals are the caller's."""
        loop = asyncio.get_running_loop()
        reloading: set[asyncio.Task[Any]] = set()

        def reload() -> None:
            task = loop.create_task(self._catalogue.reload_all())
            reloading.add(task)
            task.add_done_callback(reloading.discard)

        handlers = {signal.SIGTERM: self.stop, signal.SIGINT: self.stop, signal.SIGHUP: reload}
        added = []
        before = {}
        for number, handle in handlers.items():
            try:
                before[number] = signal.getsignal(number)
                loop.add_signal_handler(number, handle)
                added.append(number)
            except (ValueError, RuntimeError, NotImplementedError):
                logger.debug("no handler for %s here", number)
        try:
            yield
        finally:
            for number in added:
                loop.remove_signal_handler(number)
                signal.signal(number, before[number])
