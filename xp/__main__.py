"""``python -m xp``: compose, check, hand over."""

from __future__ import annotations

import gc
import os
import sys

HELP = """xp trains, evaluates and uses transformer models; a config says what, MLflow remembers it.

    python -m xp [flags] [group=choice ...] [key=value ...]

Groups and their choices (conf/<group>/<choice>.yaml):
{groups}
Keys: `python -m xp --cfg job` shows them all with their values, for whatever is chosen beside it.

Examples:
    python -m xp                                             train the embedded default
    python -m xp backend=accelerate peft=lora                the same through accelerate, adapters only
    python -m xp data=stdlib_code                            language modelling
    python -m xp data=files data.train=train.tsv data.eval=dev.tsv data.columns.text=sentence
    python -m xp command=show data=stdlib_chat               rows as the model sees them, and their lengths
    python -m xp command=evaluate model.path=runs/<run>/model
    python -m xp command=predict model.path=runs/<run>/model inputs=texts.txt
    python -m xp command=generate inputs="def main("
    python -m xp command=merge model.path=runs/<run>/model   an adapter into its base, as a plain model
    python -m xp resume=last                                 go on with a run that was ended by a bad day
    python -m xp rerun=<MLflow run id> seed=2                a tracked run again, with other settings if you like
    python -m xp command=diff runs=[<one>,<other>]           what differs between two runs
    python -m xp command=sync                                bring to MLflow what a server that was away has missed
    python -m xp command=tasks                               what can be predicted, and from what
    python -m xp -m backend=hf,torch,accelerate seed=1,2     a sweep
    python -m xp -m hydra.launcher.slots=2 seed=1,2,3,4      two jobs at a time

Flags:
    --cfg job                         show the composed config and stop
    -m                                sweep over comma-separated values
    --config-dir <folder>             more configs (conf/ of the current folder is looked at anyway)
    --shell-completion install=bash   complete groups, choices and keys: eval "$(xp --shell-completion install=bash)"
    --hydra-help                      Hydra's own flags
"""

LONGEST = 2000
"""Signs of an error's line at most; a value of a million is shown by its ends."""


def main() -> int:
    """The exit code: 0; 1 if some inputs or jobs failed; 2 after one line on what to mend; or 128 and a signal."""
    gc.freeze()
    gc.disable()  # Nothing that composing makes is garbage, and looking for some costs a tenth of the time.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # It would look through every installed package.
    from xp.error import UserError

    try:
        return _main(sys.argv[1:])
    except UserError as error:
        from xp.process import world

        if world.rank():  # A launcher ends all at the first exit: rank 0 speaks, unless this is its own trouble.
            import time

            time.sleep(5)
        print(f"xp: {_line(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("xp: interrupted", file=sys.stderr)
        return 130
    except Exception:  # A mistake of ours, or of a module of the user's: all of it, but for secrets.
        import traceback

        from xp.secret import redacted

        print(redacted(traceback.format_exc()), end="", file=sys.stderr)
        return 1


def _line(said: str) -> str:
    """A message as one line: what a config holds may have line breaks and signs that a terminal acts upon."""
    line = "".join(sign if sign.isprintable() else " " for sign in said)
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


def _main(arguments: list[str]) -> int:
    if "--help" in arguments or "-h" in arguments:
        print(HELP.format(groups=_groups(arguments)))
        return 0
    from hydra._internal.utils import get_args_parser

    from xp import secret
    from xp.config import compose
    from xp.error import UserError

    parser = get_args_parser()
    parser.prog = "python -m xp"
    flags = parser.parse_intermixed_args(arguments)
    _check_flags(flags)
    asks_hydra = flags.hydra_help or flags.info or flags.cfg in ("hydra", "all")
    if flags.shell_completion:
        return _hydra_answers()
    compose.initialize(flags.config_dir)
    overrides = secret.without(flags.overrides)
    if asks_hydra:
        compose.shown(overrides, flags.config_dir, None, False)  # Refuses what Hydra would act upon.
        return _hydra_answers()
    if flags.cfg:
        shown = compose.shown(overrides, flags.config_dir, flags.package, flags.resolve)
        print(secret.redacted(shown), end="")
        return 0
    if flags.multirun:
        if earlier := [each for each in overrides if each.lstrip("+").startswith(("resume=", "rerun="))]:
            raise UserError(f"{earlier[0]}: one run at a time; leave out -m")
        from xp.sweep.launcher import sweep

        return sweep(overrides, flags.config_dir)
    return _start(overrides, flags.config_dir)


def _start(overrides: list[str], config_dir: str | None) -> int:
    """Do what the command line says: go on with a run, do one again, list the tasks, or begin a run."""
    from xp.config import compose
    from xp.error import UserError

    folder = origin = None
    earlier = [each for each in overrides if each.startswith(("resume=", "rerun="))]
    rest = [each for each in overrides if each not in earlier]
    if len(earlier) > 1:
        raise UserError(f"{' '.join(earlier)}: one run at a time; leave out all but one")
    if earlier and earlier[0].startswith("resume="):
        from xp.resume import resumed

        run, folder = resumed(earlier[0].removeprefix("resume="), rest, config_dir)
    elif earlier:
        from xp.report import Report
        from xp.rerun import again

        run, origin = again(earlier[0].removeprefix("rerun="), rest, config_dir, Report().say)
    else:
        values = compose.values(overrides, config_dir)
        from xp.run import Run  # A tenth of a second, which a wrong word need not wait for.

        run = Run.parse(values)
    if run.command == "tasks":
        from xp.report import show_tasks

        show_tasks(compose.tasks(config_dir))
        return 0
    if run.command == "diff":
        from xp.comparison import show

        show(run)
        return 0
    if run.command == "sync":
        from pathlib import Path

        from xp.tracking import sync

        return sync(Path(run.runs_folder), run.tracking, print)
    run.check_files()
    gc.enable()
    from xp.launch import start

    return 1 if start(run, folder=folder, origin=origin).get("failed") else 0


def _groups(arguments: list[str]) -> str:
    """A line for each group with its choices, from xp's configs and the user's own."""
    from pathlib import Path

    here = Path(__file__).parent
    flag = arguments.index("--config-dir") if "--config-dir" in arguments else None
    own = [] if flag is None else arguments[flag + 1 : flag + 2]
    choices: dict[str, set[str]] = {}
    for folder in (here / "conf", here.parent / "conf", Path("conf"), *map(Path, own)):
        for file in folder.glob("*/*.yaml"):
            choices.setdefault(file.parent.name, set()).add(file.stem)
    return "".join(f"    {group:<11} {', '.join(sorted(names))}\n" for group, names in sorted(choices.items()))


def _check_flags(flags: object) -> None:
    from xp.error import UserError

    for flag, instead in (("config_path", "--config-dir"), ("config_name", "experiment=<name>"),
                          ("experimental_rerun", "a run's own command")):  # fmt: skip
        if getattr(flags, flag) is not None:
            raise UserError(f"--{flag.replace('_', '-')}: xp has no use for it; use {instead}")


def _hydra_answers() -> int:
    import io
    from contextlib import redirect_stdout

    import hydra
    from hydra.core.global_hydra import GlobalHydra

    from xp.config.compose import conf_folder, register
    from xp.secret import redacted

    GlobalHydra.instance().clear()
    register()
    main = hydra.main(version_base="1.3", config_path=str(conf_folder().absolute()), config_name="config")
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            main(lambda config: None)()
    finally:
        print(redacted(said.getvalue()), end="", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
