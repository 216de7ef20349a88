"""Shell completion of commands, run folders and formats. No torch here."""

from pathlib import Path

from dlrun.runs.formats import FORMATS

SCRIPT = """\
_dl_runs() {
  local IFS=$'\\n'
  COMPREPLY=($(compgen -W "$(dl-runs completion bash --words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" \
-- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _dl_runs dl-runs"""


def words(line: list[str], commands: list[str]) -> list[str]:
    """List the completions of the last word of a command line."""
    from dlrun.output.folders import all_runs

    if len(line) <= 1:
        return commands
    if line[-2] == "--format":
        return ["jsonl", "csv"] if line[0] == "predict" else list(FORMATS)
    if line[0] in ("list", "completion"):
        return []
    if line[0] in ("compare", "report") or len(line) == 2:
        return ["last", *map(str, reversed(all_runs(Path("outputs"))))]
    return []
