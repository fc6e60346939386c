"""The commands by name. Each module of commands is small; what is heavy loads when it runs."""

import typer

from embedtune.cli import (
    adapt,
    ask,
    data,
    doctor,
    export,
    indexing,
    migrate,
    models,
    push,
    runs,
    serve,
)

app = typer.Typer(
    name="embedtune",
    help="Fine-tune text embedding models on your own documents, with a verdict you can trust.",
    epilog="Results go to standard output, messages to standard error.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (
    runs.demo,
    runs.init,
    runs.run,
    runs.status,
    runs.report,
    runs.review,
    runs.diagnose,
):
    app.command()(command)
for command in (
    data.read,
    data.chunk,
    data.generate,
    data.split,
    data.audit,
    data.mine,
    data.convert,
):
    app.command()(command)
for command in (
    models.candidates,
    models.train,
    models.merge,
    models.distil,
    models.evaluate,
    models.compare,
):
    app.command()(command)
app.command()(export.export)
app.command()(push.push)
app.command()(indexing.index)
app.command()(indexing.search)
app.command()(migrate.migrate)
app.command()(ask.ask)
app.command()(serve.serve)
app.command()(adapt.adapt)
app.command()(doctor.doctor)


@app.callback(invoke_without_command=True)
def root(
    version: bool = typer.Option(False, "--version", help="Print the version and stop."),
    debug: bool = typer.Option(False, "--debug", help="Show the log of all libraries."),
) -> None:
    if version:
        import embedtune

        print(embedtune.__version__)
        raise typer.Exit
