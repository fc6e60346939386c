"""The command serve: models behind the OpenAI API."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedtune.cli.console import Console, emit
from embedtune.cli.options import Config, Json, Quiet, load_settings
from embedtune.errors import ConfigError
from embedtune.files import visible

if TYPE_CHECKING:
    from embedtune.serving.settings import ServerSettings

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            help="[NAME=]MODEL: folder, run, name, ONNX folder, adapter; or hashing. None: that of "
            "--index."
        ),
    ] = [],  # noqa: B006  (typer copies it)
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")
    ] = 8000,
    api_key_env: Annotated[
        list[str],
        typer.Option("--api-key-env", metavar="NAME", help="Variable that holds a client's key."),
    ] = [],  # noqa: B006  (typer copies it)
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", help="File of keys, one a line.")
    ] = None,
    admin_key_env: Annotated[
        list[str],
        typer.Option("--admin-key-env", metavar="NAME", help="Variable with the admin's key."),
    ] = [],  # noqa: B006
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Cut texts that are too long; else refuse them.")
    ] = False,
    index: Annotated[
        str | None,
        typer.Option("--index", help="Answer questions from it, at /v1/chat/completions."),
    ] = None,
    no_llm: Annotated[
        bool, typer.Option("--no-llm", help="For --index: quote sentences; ask no language model.")
    ] = False,
    config: Config = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, mps.")] = "auto",
    overrides: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A limit, e.g. queue_seconds=5, or llm.model=…"
        ),
    ] = [],  # noqa: B006
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Serve models at /v1/embeddings, as the OpenAI API does.

    Example: embedtune serve docs=run/ --port 8000
    """
    try:
        from embedtune.serving.app import create_app
        from embedtune.serving.keys import read_keys
        from embedtune.serving.metrics import Metrics
        from embedtune.serving.models import Catalogue, Source, parse_source
        from embedtune.serving.process import Server, open_port
    except ModuleNotFoundError as error:
        if str(error.name).startswith("embedtune"):
            raise
        raise ConfigError(
            f"the server needs {error.name}, which is not installed: pip install 'embedtune[serve]'"
        ) from error
    console = Console(quiet=quiet)
    # of the server itself, and of the configuration, whose settings are in sections
    own = [override for override in overrides if "." not in override.partition("=")[0]]
    settings = _settings(own, truncate)
    rest = [override for override in overrides if override not in own]
    if (rest or config) and index is None:
        raise ConfigError("--config and --set of a section are for --index; name one, or drop them")
    if no_llm and index is None:
        raise ConfigError("--no-llm is for --index; name one, or drop it")
    if not models and index is None:
        raise ConfigError("serve: expected a model; or --index, whose model is then served")
    keys = read_keys(api_key_env, api_key_file, admin_key_env)
    if not keys.required and host not in LOOPBACK:
        console.say(f"warning: {visible(host)} without keys: whoever reaches it can use it")
    sources = [parse_source(model) for model in models]
    listener = open_port(host, port)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listener.getsockname()[1]}/v1"
    with ExitStack() as held:
        answerer = None
        if index is not None:
            from embedtune.pipeline.asking import open_answerer

            llm = load_settings(config, rest)
            answerer = held.enter_context(open_answerer(index, llm, console, no_llm=no_llm))
            sources = sources or [Source("embedtune", answerer.index.info.source)]
        local = {} if device == "auto" else {"device": device}
        catalogue = Catalogue(settings, Metrics(), **local)
        for source in sources:
            console.say(f"loading {visible(source.model)}")
            catalogue.add(source)
        names = [served.source.name for served in catalogue.served]

        def started() -> None:
            emit(
                {"url": url, "models": names},
                as_json=json,
                text=lambda: f"serving {', '.join(map(visible, names))} at {url}",
            )

        gate = create_app(settings, catalogue, keys=keys, answerer=answerer)
        Server(gate, catalogue, settings, started).run(sockets=[listener])
    return 0


def _settings(overrides: list[str], truncate: bool) -> "ServerSettings":
    from pydantic import ValidationError

    from embedtune.serving.settings import ServerSettings

    given: dict[str, str] = {"too_long": "truncate"} if truncate else {}
    for override in overrides:
        key, mark, value = override.partition("=")
        if not mark:
            raise ConfigError(f"--set {visible(override)}: expected KEY=VALUE")
        given[key.strip()] = value.strip()
    try:
        return ServerSettings.model_validate(given)
    except ValidationError as error:
        known = ", ".join(sorted(ServerSettings.model_fields))
        raise ConfigError(
            [
                f"--set {visible('.'.join(map(str, fault['loc'])))}: {fault['msg']}"
                + (f"; known are {known}" if fault["type"] == "extra_forbidden" else "")
                for fault in error.errors(include_url=False)
            ]
        ) from None
