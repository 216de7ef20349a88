"""Shell completion of dl-run, dl-runs and dl-data in bash, zsh and fish. No torch here."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from dlrun.runs.formats import FORMATS

# dl-run asks Hydra, the others their own `completion SHELL --words LINE...`. Where "=" ends a word, bash replaces only
# what follows it.
BASH = """\
_dl_run() {
  local word=${COMP_LINE:0:COMP_POINT} IFS=$' \\n'
  word=${word##* }
  COMPREPLY=($(COMP_LINE=$COMP_LINE COMP_POINT=$COMP_POINT dl-run -sc query=bash 2>/dev/null))
  if [[ $COMP_WORDBREAKS == *=* && $word == *=* ]]; then
    COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}")
  fi
}
_dl_runs() {
  local IFS=$'\\n'
  COMPREPLY=($(compgen -W "$("$1" completion bash --words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" \\
-- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -o nospace -F _dl_run dl-run
complete -o default -F _dl_runs dl-runs dl-data"""

ZSH = """\
(( $+functions[compdef] )) || { autoload -Uz compinit; compinit; }
_dl_run() {
  local line="${(j: :)words[1,CURRENT]}"
  local -a found=(${=$(COMP_LINE=$line COMP_POINT=${#line} dl-run -sc query=bash 2>/dev/null)})
  compadd -S '' -- $found || _files
}
_dl_runs() {
  local -a found=(${(f)"$($words[1] completion zsh --words "${(@)words[2,CURRENT]}" 2>/dev/null)"})
  compadd -- $found || _files
}
compdef _dl_run dl-run
compdef _dl_runs dl-runs dl-data"""

FISH = """\
function __dl_run
  set -lx COMP_LINE (commandline -cp)
  set -lx COMP_POINT (string length -- $COMP_LINE)
  dl-run -sc query=fish 2>/dev/null
end
function __dl_runs
  set -l line (commandline -cpo)
  $line[1] completion fish --words $line[2..] (commandline -ct) 2>/dev/null
end
complete -c dl-run -a '(__dl_run)'
complete -c dl-runs -a '(__dl_runs)'
complete -c dl-data -a '(__dl_runs)'"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def completion_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `completion`."""
    parser.add_argument("shell", choices=tuple(SCRIPTS))
    parser.add_argument("--words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def words(line: list[str], options: Callable[[str], list[str]], commands: Sequence[str]) -> list[str]:
    """List the completions of the last word of a dl-runs command line, given without dl-runs itself.

    options: returns the flags of a command.
    """
    from dlrun.config.project import output_dir
    from dlrun.output.folders import all_runs

    if len(line) <= 1:
        return list(commands)
    if line[-1].startswith("-"):
        return options(line[0])
    if line[-2] == "--format":
        return ["jsonl", "csv"] if line[0] == "predict" else list(FORMATS)
    if line[0] == "completion":
        return list(SCRIPTS)
    if line[0] in ("list", "ui"):
        return []
    if line[0] in ("compare", "report") or len(line) == 2:
        return ["last", *map(str, reversed(all_runs(Path(output_dir()))))]
    return []


def data_words(line: list[str], options: Callable[[str], list[str]], commands: Sequence[str]) -> list[str]:
    """List the completions of the last word of a dl-data command line, given without dl-data itself."""
    from dlrun.config.usage import options as options_of

    if len(line) <= 1:
        return list(commands)
    if line[-1].startswith("-"):
        return options(line[0])
    if line[0] == "completion":
        return list(SCRIPTS)
    return options_of("data") if line[0] in ("fetch", "check", "draw") and len(line) == 2 else []
