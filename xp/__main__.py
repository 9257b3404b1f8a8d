"""``python -m xp``: compose, check, hand over."""

from __future__ import annotations

import gc
import sys

FLAGS = ("--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc", "--version")
"""What Hydra answers by itself."""


def main() -> int:
    """The exit code: 0, or 2 after one line about what the user can mend, or the number of a signal plus 128."""
    gc.freeze()
    gc.disable()  # Nothing that composing makes is garbage, and looking for some costs a tenth of the time.
    from xp.component import UserError

    try:
        return _main(sys.argv[1:])
    except UserError as error:
        from xp import world

        if world.rank() == 0:
            print(f"xp: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("xp: interrupted", file=sys.stderr)
        return 130


def _main(arguments: list[str]) -> int:
    from hydra._internal.utils import get_args_parser

    from xp import compose

    parser = get_args_parser()
    parser.prog = "python -m xp"
    flags = parser.parse_args(arguments)
    _check_flags(flags)
    from xp.sweep import register

    register()
    if any(argument.split("=")[0] in FLAGS for argument in arguments):
        return _hydra_answers()
    compose.initialize(flags.config_dir)
    if flags.multirun:
        from xp.sweep import sweep

        return sweep(flags.overrides, flags.config_dir)
    values = compose.values(flags.overrides, flags.config_dir)
    from xp.run import Run

    run = Run.parse(values)
    gc.enable()
    from xp.launch import start

    start(run)
    return 0


def _check_flags(flags: object) -> None:
    from xp.component import UserError

    for flag, instead in (("config_path", "--config-dir"), ("config_name", "experiment=<name>"),
                          ("experimental_rerun", "a run's own command")):  # fmt: skip
        if getattr(flags, flag) is not None:
            raise UserError(f"--{flag.replace('_', '-')}: xp has no use for it; use {instead}")


def _hydra_answers() -> int:
    import hydra
    from hydra.core.plugins import Plugins

    from xp.compose import OwnConfigs, conf_folder

    Plugins.instance().register(OwnConfigs)
    hydra.main(version_base="1.3", config_path=str(conf_folder().absolute()), config_name="config")(lambda config: None)()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
