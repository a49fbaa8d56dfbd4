"""Connections must not take the file descriptors that the stores and the log need."""

import resource

RESERVED = 256  # for all that is not a connection
SERVERS = 2  # the API and the metrics page divide the rest
CONNECTIONS_MIN, CONNECTIONS_MAX = 16, 4_096  # of one server
MACOS_MAX = 10_240  # where the hard limit is infinite, yet more than this is refused


def raise_limit() -> int:
    """Raises this process's soft limit of open files to the hard one, as far as the system lets it; returns what it is
    then.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft in (hard, resource.RLIM_INFINITY):
        return soft
    for limit in (hard, MACOS_MAX):
        try:
            if limit > soft or limit == resource.RLIM_INFINITY:
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                return limit
        except (OSError, ValueError):
            pass
    return soft


def connections_max(files: int) -> int:
    """Returns how many connections one server may hold when the process may open so many files."""
    if files == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return max(CONNECTIONS_MIN, min(CONNECTIONS_MAX, (files - RESERVED) // SERVERS))
