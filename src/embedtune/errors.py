"""Every error a user can meet, each with the exit code the command line ends with.

    EmbedtuneError
    ├── ConfigError        2   usage or configuration; carries all faults at once
    ├── NothingUsable      3   no input left to work on
    ├── ServiceError       5   an outside service failed; can be resumed
    ├── ResourceError      6   disk, memory or file handles ran out; can be resumed
    ├── IntegrityError     7   damaged state, wrong hash, non-finite numbers, leakage
    ├── LockedError        8   another live process works in this run directory
    ├── RequirementError   9   the verdict is not one of those asked for by --require
    └── Interrupted        130 stopped by a signal; can be resumed

Exit code 4 ("done, but some input was unusable") is no error: commands return it when
their rejects are not empty. Exit code 1 is left to our own bugs.
"""

from collections.abc import Sequence


class EmbedtuneError(Exception):
    """Base of all errors that are shown to the user as one line each, without traceback."""

    exit_code = 1

    @property
    def lines(self) -> tuple[str, ...]:
        """One message a line, as printed on standard error."""
        return (str(self),)


class ConfigError(EmbedtuneError):
    """Usage or configuration is wrong. All faults found are reported together."""

    exit_code = 2

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults = (faults,) if isinstance(faults, str) else tuple(faults)
        super().__init__("; ".join(self.faults))

    @property
    def lines(self) -> tuple[str, ...]:
        return self.faults


class NothingUsable(EmbedtuneError):
    """Nothing usable is left to work on."""

    exit_code = 3


class ServiceError(EmbedtuneError):
    """An outside service failed; what was paid for is stored, and the command can be repeated."""

    exit_code = 5


class ResourceError(EmbedtuneError):
    """Disk, memory or file handles ran out; the command can be repeated."""

    exit_code = 6


class IntegrityError(EmbedtuneError):
    """Damaged state, a wrong hash, non-finite numbers or leakage: no result can be trusted."""

    exit_code = 7


class LockedError(EmbedtuneError):
    """Another live process holds the run directory."""

    exit_code = 8


class RequirementError(EmbedtuneError):
    """The verdict is not one of those named by ``--require``."""

    exit_code = 9


class Interrupted(EmbedtuneError):
    """Stopped by a signal; the same command goes on."""

    exit_code = 130
