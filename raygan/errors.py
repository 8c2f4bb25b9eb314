"""The exceptions that raygan raises on purpose.

RayganError             anything else, such as a damaged record
├── ConfigError         the YAML, an option or a value in them is wrong
├── DataError           images are missing, corrupt or too few
│   └── UnusableError   one image cannot be used; defined in raygan.data.decode
├── PictureError        a stored picture cannot be shown; defined in raygan.pictures
├── CheckpointError     a checkpoint is not whole, or belongs to another configuration
├── StalledError        a worker made no progress for too long
├── ResourceError       the cluster cannot hold what was asked for
├── LockedError         another process runs this sweep
├── TrackingError       the MLflow server or store cannot be used
└── RunError            a sweep broke off while it prepared images or trained

A command that fails with one of them exits with code 2, or 1 if it is a RunError. Its message then
says what was given, what is allowed and what to do. UnusableError and PictureError name the image
and the reason only, since their callers go on without it.
"""

from raygan.shown import shown

_MOST = 20_000
"""Most characters of a message that are kept."""


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


class StalledError(RayganError):
    """A worker made no progress for too long; it is ended, and its trial resumes."""


class ResourceError(RayganError):
    """The cluster cannot hold what was asked for."""


class LockedError(RayganError):
    """Another process runs the sweep, or copies it to MLflow."""


class TrackingError(RayganError):
    """The MLflow server or store cannot be used."""


class RunError(RayganError):
    """A sweep broke off while it prepared its images or trained; the same command resumes it."""
