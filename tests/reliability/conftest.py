"""The tiny shop of the command's tests, and what the commands make of it."""

from ..cli.conftest import model, shop  # noqa: F401
