"""The version of raygan; of a module that imports nothing, so that every room can name it."""

__version__ = "0.3.0"
