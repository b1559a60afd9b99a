"""`voxmill serve`: the speech server, and `voxmill serve-key`: keys for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from voxcpm.server.settings import ServerSettings, help_of
from voxmill.terminal import JsonOption, Terminal


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(serve)
    app.command("serve-key")(serve_key)


def serve(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A checkpoint folder or a hub id.")],
    name: Annotated[str, typer.Option(help=help_of("name"))] = "",
    host: Annotated[str, typer.Option(help=help_of("host"))] = "127.0.0.1",
    port: Annotated[int, typer.Option(help=help_of("port"))] = 8000,
    device: Annotated[str, typer.Option(help=help_of("device"))] = "auto",
    dtype: Annotated[str | None, typer.Option(help=help_of("dtype"))] = None,
    slots: Annotated[int | None, typer.Option(help=help_of("slots"))] = None,
    threads: Annotated[int | None, typer.Option(help=help_of("threads"))] = None,
    lora: Annotated[list[str] | None, typer.Option(help=help_of("lora"))] = None,
    voices: Annotated[Path | None, typer.Option(help=help_of("voices"))] = None,
    stored_only: Annotated[bool, typer.Option("--stored-only", help=help_of("stored_only"))] = False,
    require_consent: Annotated[bool, typer.Option("--require-consent", help=help_of("require_consent"))] = False,
    reference_hosts: Annotated[
        list[str] | None, typer.Option("--reference-host", help=help_of("reference_hosts"))
    ] = None,
    keys: Annotated[Path | None, typer.Option(help=help_of("keys"))] = None,
    no_keys: Annotated[bool, typer.Option("--no-keys", help=help_of("no_keys"))] = False,
    wyoming: Annotated[str | None, typer.Option(help=help_of("wyoming"))] = None,
    wyoming_no_keys: Annotated[bool, typer.Option("--wyoming-no-keys", help=help_of("wyoming_no_keys"))] = False,
    allow_host: Annotated[list[str] | None, typer.Option(help=help_of("allow_host"))] = None,
    cors: Annotated[list[str] | None, typer.Option(help=help_of("cors"))] = None,
    default_format: Annotated[str, typer.Option(help=help_of("default_format"))] = "mp3",
    pcm_rate: Annotated[str, typer.Option(help=help_of("pcm_rate"))] = "24000",
    strict: Annotated[bool, typer.Option("--strict", help=help_of("strict"))] = False,
    no_mark: Annotated[bool, typer.Option("--no-mark", help=help_of("no_mark"))] = False,
    no_watermark: Annotated[bool, typer.Option("--no-watermark", help=help_of("no_watermark"))] = False,
    watermark_key: Annotated[Path | None, typer.Option(help=help_of("watermark_key"))] = None,
    sign_key: Annotated[Path | None, typer.Option(help=help_of("sign_key"))] = None,
    sign_cert: Annotated[Path | None, typer.Option(help=help_of("sign_cert"))] = None,
    sign_training: Annotated[str, typer.Option(help=help_of("sign_training"))] = "notAllowed",
    sign_tsa: Annotated[str | None, typer.Option(help=help_of("sign_tsa"))] = None,
    deadline: Annotated[float | None, typer.Option(help=help_of("deadline"))] = None,
    max_characters: Annotated[int, typer.Option(help=help_of("max_characters"))] = 4096,
    max_seconds: Annotated[float, typer.Option(help=help_of("max_seconds"))] = 120.0,
    drain: Annotated[float, typer.Option(help=help_of("drain"))] = 30.0,
    hang_after: Annotated[float | None, typer.Option(help=help_of("hang_after"))] = None,
    load_within: Annotated[float, typer.Option(help=help_of("load_within"))] = 900.0,
    unload_after: Annotated[float | None, typer.Option(help=help_of("unload_after"))] = None,
) -> None:
    """Serve a checkpoint over HTTP as OpenAI's speech API does, with streaming, several requests at once, and metrics.

    SIGTERM or Ctrl-C lets running requests end; a second one does not. docs/serving.md describes the API.

    Example:  voxmill serve demo/model/latest --port 8000
    """
    settings = ServerSettings(
        checkpoint=checkpoint,
        name=name,
        host=host,
        port=port,
        device=device,
        dtype=dtype,
        slots=slots,
        threads=threads,
        lora=tuple(lora or ()),
        voices=voices,
        stored_only=stored_only,
        require_consent=require_consent,
        reference_hosts=tuple(reference_hosts or ()),
        keys=keys,
        no_keys=no_keys,
        wyoming=wyoming,
        wyoming_no_keys=wyoming_no_keys,
        allow_host=tuple(allow_host or ()),
        cors=tuple(cors or ()),
        default_format=default_format,
        pcm_rate=pcm_rate,
        strict=strict,
        no_mark=no_mark,
        no_watermark=no_watermark,
        watermark_key=watermark_key,
        sign_key=sign_key,
        sign_cert=sign_cert,
        sign_training=sign_training,
        sign_tsa=sign_tsa,
        deadline=deadline,
        max_characters=max_characters,
        max_seconds=max_seconds,
        drain=drain,
        hang_after=hang_after,
        load_within=load_within,
        unload_after=unload_after,
    )
    if require_consent:
        from voxmill.consent_check import check_models

        check_models()
    from voxcpm.server.run import serve as run

    terminal = Terminal()
    run(settings, lambda url: terminal.say(f"{settings.model_name} is ready at {url} (Ctrl-C ends it)"))


def serve_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who gets the key: letters a-z, digits, '.', '_', '-'.")],
    keys: Annotated[Path | None, typer.Option(help="Keys file to add the line to; it is printed if not given.")] = None,
    running: Annotated[int | None, typer.Option(help="Requests at once; 0: no limit. Default: 4.")] = None,
    queued: Annotated[
        int | None, typer.Option(help="Requests that wait for one of these to end; 0: none. Default: 20.")
    ] = None,
    characters: Annotated[int | None, typer.Option(help="Characters of text per minute. Default: no limit.")] = None,
    audio: Annotated[int | None, typer.Option(help="Seconds of audio per day. Default: no limit.")] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="May read metrics and consents, change voices, see all requests.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a key for the server. The key is shown once; the keys file holds only its sha256.

    Example:  voxmill serve-key anna --keys keys.txt --characters 20000
    """
    from voxcpm.server.access.keys import add_line, make_key

    secret, line = make_key(name, admin, running=running, queued=queued, characters=characters, audio=audio)
    terminal = Terminal(as_json)
    if keys is not None:
        add_line(keys, line)
        terminal.say(f"{keys}: {name} added")
    else:
        terminal.say(f"line for the keys file: {line}")
    terminal.say(f"key for {name} (not shown again): {secret}")
    terminal.result({"name": name, "key": secret, "line": line, "keys": str(keys) if keys else None})
