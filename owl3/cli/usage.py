"""What typer says about usage, in our words: short option tables, and one line about a mistake."""

from typing import Any

from typer.exceptions import TyperException

from owl3.errors import ConfigError, Owl3Error

_WORDS = {"int": "N", "float": "NUMBER", "str": "TEXT", "Path": "PATH"}


def tidy(command: Any, parent: Any = None) -> Any:
    """Name the values of options shortly, and none for flags; arguments say by their names what they are.

    Args:
        command: typer's command or group; its types are private, so they are not named here.
        parent: typer's context of the group that it belongs to.
    """
    context = command.context_class(command, info_name=command.name, parent=parent, **command.context_settings)
    for parameter in command.get_params(context):
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = _nothing
        if parameter.metavar is None:
            parameter.metavar = _metavar(parameter)
    for child in getattr(command, "commands", {}).values():
        tidy(child, context)
    return command


def _nothing(**_: Any) -> None:
    return None


def _metavar(parameter: Any) -> str | None:
    if parameter.param_type_name == "argument":
        return str(parameter.name).replace("_", "-").upper()
    if parameter.is_flag:
        return ""
    kind = parameter.type_descriptor
    if kind.is_choice or kind.is_tuple:
        return None  # typer shows the choices
    bare = parameter.bare_type().removeprefix("list[").removesuffix("]")
    return _WORDS.get(bare, "DATE" if kind.is_datetime else bare.upper())


def explain(error: TyperException) -> Owl3Error:
    """A mistake in usage as one line that names the verb and where its options are told."""
    context = getattr(error, "ctx", None)
    said = _said(error)
    told = ConfigError(f"{said[:1].lower()}{said[1:]}")
    if not said:  # no arguments at all: the help has been printed
        told.is_told = True
    elif context is not None:
        verb = context.command_path.removeprefix("owl3").strip()
        told = ConfigError(f"{verb}{': ' if verb else ''}{told} ({context.command_path} --help)")
    return told


def _said(error: TyperException) -> str:
    near = getattr(error, "possibilities", None)
    if near:
        return f"{error.message}; did you mean {' or '.join(sorted(near))}?"
    return " ".join(error.format_message().replace("Value error, ", "").split()).removesuffix(".")
