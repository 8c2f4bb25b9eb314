"""The exceptions that raygan raises on purpose.

RayganError
├── ConfigError        the YAML, an option or a value in them is wrong   (exit code 2)
├── DataError          images are missing, corrupt or too few            (exit code 2)
├── CheckpointError    a checkpoint is not whole, or of another run
├── ResourceError      the cluster cannot hold what was asked            (exit code 2)
├── LockedError        another process runs this sweep               (exit code 2)
└── TrackingError      the MLflow server or store cannot be used         (exit code 2)

Every message says what was given, what is allowed and what to do.
"""

from raygan.shown import shown

_MOST = 20_000
"""Characters of a message that are kept."""


class RayganError(Exception):
    """Base of all errors that raygan raises on purpose."""


class ConfigError(RayganError, ValueError):
    """A configuration is wrong; nothing has been started."""


class DataError(RayganError):
    """A data set is missing, corrupt, or does not fit the request.

    Control characters of the message, which file names may have, are made visible.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shown(message, _MOST))


class CheckpointError(RayganError):
    """A checkpoint is not whole, or belongs to another configuration."""


class ResourceError(RayganError):
    """The cluster cannot hold what was asked for."""


class LockedError(RayganError):
    """The sweep is being run by another process."""


class TrackingError(RayganError):
    """The MLflow server or store cannot be used."""
