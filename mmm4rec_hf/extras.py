"""What an error says where the packages of an extra are missing."""


def how_to_install(extra: str) -> str:
    """
    The line that installs an extra.

    Args:
        extra (`str`): One of pyproject.toml, such as `serve`.

    Returns:
        `str`: For an installed release, and for a clone, whose name no index need know.
    """
    return f"pip install 'mmm4rec-hf[{extra}]', from a clone pip install -c constraints.txt '.[{extra}]'"
