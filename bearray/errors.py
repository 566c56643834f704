"""The errors that bearray raises on purpose.

Each one also inherits the standard error it stands for, so `except ValueError` keeps working, and each is
built from one message, so it survives pickling between Ray processes. The command line prints the message
of a `BearrayError` without a traceback and exits with 2.
"""


class BearrayError(Exception):
    """Base of every error that a user can cause and mend; the message says how."""


class ConfigError(BearrayError, ValueError):
    """A setting has a value that cannot work."""


class DataError(BearrayError, ValueError):
    """A data file does not hold what it must; the message names file, row and value."""


class MissingFileError(BearrayError, FileNotFoundError):
    """A file or folder that was asked for is not there."""


class ModelError(BearrayError, ValueError):
    """A base model or adapter cannot be used."""


class NaNError(ModelError):
    """What a model computes is not a number, so nothing can be decoded with it."""


class StorageError(BearrayError, OSError):
    """The storage path cannot be read or written."""


class BusyError(BearrayError, RuntimeError):
    """Another process is at work on the storage; the message says who."""


class ResourceError(BearrayError, RuntimeError):
    """The cluster does not have what the run asks for."""


class ResumeError(BearrayError, RuntimeError):
    """A rerun does not match what is already on disk."""
