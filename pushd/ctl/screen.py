"""The screen of `pushctl top`; the only room that needs textual.

A thread asks the server, so that keys are answered while it is slow. What goes wrong there ends
the screen and is its result.
"""

from collections.abc import Callable

from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.widgets import Footer, Static
from textual.worker import get_current_worker

from .calls import Fields, NotReached, Refused
from .top import View, compare, text


class Screen(App[Exception | None]):
    """Show a view that is renewed every `interval` seconds."""

    TITLE = "pushctl top"
    BINDINGS = [  # noqa: RUF012 # textual's own way
        Binding("q", "quit", "Quit"),
        Binding("space", "pause", "Pause"),
    ]

    def __init__(self, ask: Callable[[], Fields], interval: float) -> None:
        super().__init__()
        self._ask = ask  # gives a reply to `top`; raises NotReached and Refused
        self._interval = interval  # seconds between two looks
        self._before: Fields | None = None  # the reply before
        self._asking = False  # a thread waits for a reply
        self._held = False  # the view stays as it is
        self._view = Static("waiting for the second look", markup=False)

    def compose(self) -> ComposeResult:
        """Lay out the view, which may be longer than the terminal."""
        yield VerticalScroll(self._view)
        yield Footer()

    def on_mount(self) -> None:
        """Look now, and again and again."""
        self.look()
        self.set_interval(self._interval, self.look)

    def action_pause(self) -> None:
        """Hold the view, or go on."""
        self._held = not self._held
        self.sub_title = "paused" if self._held else ""

    def look(self) -> None:
        """Ask the server, unless it has not answered yet."""
        if not self._asking:
            self._asking = True
            self._ask_in_thread()

    @work(thread=True)
    def _ask_in_thread(self) -> None:
        worker = get_current_worker()
        try:
            reply = self._ask()
        except (NotReached, Refused) as problem:
            if not worker.is_cancelled:
                self.call_from_thread(self.exit, problem)
            return
        if not worker.is_cancelled:
            self.call_from_thread(self._take, reply)

    def _take(self, reply: Fields) -> None:
        self._asking = False
        before, self._before = self._before, reply
        if before is not None and not self._held:
            self._show(compare(before, reply))

    def _show(self, view: View) -> None:
        self._view.update(text(view))
